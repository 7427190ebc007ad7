//! What asks other caches for what is not here: built once, and tended for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use zeroize::Zeroizing;

use crate::config::{CacheConfig, Config, UpstreamConfig};
use crate::http::state::State;
use crate::ingest::Ingest;
use crate::ingest::pull::{ASKED_AT_ONCE, Place, Puller};
use crate::metrics::Metrics;
use crate::source::upstream::Upstream;

/// How often peers are asked what came to them, and it is looked whether who did not answer answers again.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// One for each cache that asks others.
pub(super) fn pullers(
    config: &Config,
    ingests: &BTreeMap<String, Arc<Ingest>>,
    metrics: &Metrics,
) -> BTreeMap<String, Arc<Puller>> {
    let puller = |cache: &CacheConfig| {
        let ingest = Arc::clone(ingests.get(&cache.name)?);
        let metrics_of = |upstream: &Upstream| metrics.pull.of(&cache.name, upstream.url());
        let open = |settings: &UpstreamConfig| open(&cache.name, settings, ASKED_AT_ONCE);
        let peers = cache.peers.iter().filter_map(|settings| {
            let upstream = open(settings)?;
            let metrics = metrics_of(&upstream);
            Some(Place::peer(upstream, settings.keys.clone(), metrics))
        });
        let upstreams = cache.upstreams.iter().filter_map(|settings| {
            let upstream = open(settings)?;
            let metrics = metrics_of(&upstream);
            Some(Place::upstream(upstream, settings.keys.clone(), metrics))
        });
        let places: Vec<_> = peers.chain(upstreams).collect();
        (!places.is_empty())
            .then(|| (cache.name.clone(), Puller::new(ingest, places, cache.pulling)))
    };
    config.caches.iter().filter_map(puller).collect()
}

/// A cache elsewhere; one that cannot be spoken to is done without.
pub(super) fn open(cache: &str, settings: &UpstreamConfig, connections: usize) -> Option<Upstream> {
    let authorization = match authorization(settings) {
        Ok(authorization) => authorization,
        Err(error) => {
            tracing::error!(cache, "{}: {error}; nothing is asked there", settings.address.url());
            return None;
        }
    };
    let lookup = |name: &str| std::env::var_os(name);
    Upstream::with_connections(settings.address.clone(), connections, &lookup)
        .map(|upstream| upstream.showing(authorization))
        .map_err(|error| tracing::error!(cache, "{error}; nothing is asked there"))
        .ok()
}

fn authorization(settings: &UpstreamConfig) -> Result<Option<HeaderValue>, String> {
    let Some(file) = &settings.token_file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| format!("its token in {}: {error}", file.display()))?;
    let value = Zeroizing::new(format!("Bearer {}", text.trim()));
    HeaderValue::from_str(&value)
        .map(Some)
        .map_err(|_| format!("what is in {} is no token", file.display()))
}

/// Tends all of them, each by itself: one that does not answer keeps no other waiting.
pub(super) async fn keep_pulling(state: &Arc<State>) {
    let mut tasks = tokio::task::JoinSet::new();
    for puller in state.pullers.values() {
        tasks.spawn(Arc::clone(puller).fetch_what_is_wanted());
        for index in 0..puller.places().len() {
            tasks.spawn(tend(Arc::clone(puller), index));
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!("an upstream is not looked after any more: {error}");
        }
    }
    std::future::pending().await
}

async fn tend(puller: Arc<Puller>, index: usize) {
    let mut ticks = tokio::time::interval(TEND_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&puller);
        let tended = tokio::task::spawn_blocking(move || {
            let store_dir = shared.ingest().store_dir();
            shared.places()[index].tend(store_dir, Instant::now());
        });
        if tended.await.is_err() {
            tracing::error!("looking after an upstream failed");
        }
    }
}
