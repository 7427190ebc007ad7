//! Has damaged paths put back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{CacheConfig, Config};
use crate::http::state::State;
use crate::keep::heal::Healer;
use crate::source::upstream::Upstream;
use crate::source::upstream::connect::Address;

/// How often it is looked for paths that were found damaged: as long as none was, that costs nothing.
const HEAL_EVERY: Duration = Duration::from_secs(1);

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
    let healer = |cache: &CacheConfig| {
        let ingest = Arc::clone(state.ingests.get(&cache.name)?);
        let upstreams = upstreams(cache);
        Some(Healer::new(ingest, upstreams, Arc::clone(&state.readers), &state.metrics))
    };
    config.caches.iter().filter_map(healer).collect()
}

fn upstreams(cache: &CacheConfig) -> Vec<Upstream> {
    let open = |address: &Address| {
        Upstream::new(address.clone(), &|name| std::env::var_os(name))
            .map_err(|error| {
                tracing::error!(cache = cache.name, "nothing is healed from there: {error}")
            })
            .ok()
    };
    cache.heal_from.iter().filter_map(open).collect()
}
