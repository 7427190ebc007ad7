//! Has damaged paths put back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pulling;
use crate::config::{CacheConfig, Config, UpstreamConfig};
use crate::http::state::State;
use crate::keep::heal::Healer;
use crate::source::upstream::Upstream;

/// How often it is looked for paths that were found damaged: as long as none was, that costs nothing.
const HEAL_EVERY: Duration = Duration::from_secs(1);

/// Connections that are kept to each.
const ONE_AT_A_TIME: usize = 1;

/// Heals what is found damaged, for ever.
pub(super) async fn keep_healing(config: &Config, state: &Arc<State>) {
    let healers = Arc::new(Mutex::new(healers(config, state)));
    let mut ticks = tokio::time::interval(HEAL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let healers = Arc::clone(&healers);
        let healed = tokio::task::spawn_blocking(move || {
            let mut healers = healers.lock().unwrap_or_else(PoisonError::into_inner);
            healers.iter_mut().for_each(|healer| healer.round(Instant::now()));
        });
        if healed.await.is_err() {
            tracing::error!("healing damaged paths failed");
        }
    }
}

/// One for each cache that paths can be put back into.
fn healers(config: &Config, state: &State) -> Vec<Healer> {
    config.caches.iter().filter_map(|cache| healer(cache, state)).collect()
}

/// What heals a cache, if paths can be put back into it.
pub(super) fn healer(cache: &CacheConfig, state: &State) -> Option<Healer> {
    let ingest = Arc::clone(state.ingests.get(&cache.name)?);
    let upstreams = upstreams(cache);
    Some(Healer::new(ingest, upstreams, Arc::clone(&state.readers), &state.metrics))
}

/// Peers first, then what is asked for what is missing, then what is asked for what was lost.
fn upstreams(cache: &CacheConfig) -> Vec<Upstream> {
    let open = |settings: &UpstreamConfig| pulling::open(&cache.name, settings, ONE_AT_A_TIME);
    let peers = cache.peers.iter().filter_map(open).map(Upstream::as_peer);
    let heal_from = cache.heal_from.iter().map(|address| UpstreamConfig {
        address: address.clone(),
        keys: Vec::new(),
        token_file: None,
    });
    let heal_from = heal_from.filter_map(|settings| open(&settings));
    peers.chain(cache.upstreams.iter().filter_map(open)).chain(heal_from).collect()
}
