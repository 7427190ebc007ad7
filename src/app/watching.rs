//! Has what the caches lie on watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::AppError;
use crate::bank::Bank;
use crate::config::{CacheConfig, Config};
use crate::ingest::{Ingest, Twin};
use crate::keep::probe::Probe;
use crate::keep::watch::{Lying, Watch, Watched, datasets_of};
use crate::metrics::Metrics;
use crate::source::Source;
use crate::source::vital::Standing;

/// The own bank of each cache, and the source that it is, by the name of the cache.
pub(super) type Banks = BTreeMap<String, (Arc<Bank>, Arc<Source>)>;

/// Watches every bank; those that take pushes are written to now and then.
pub(super) fn start(
    config: &Config,
    banks: &Banks,
    ingests: &BTreeMap<String, Arc<Ingest>>,
    metrics: &Arc<Metrics>,
) -> Result<Watch, AppError> {
    let mut watched = Vec::new();
    for cache in &config.caches {
        let Some((bank, source)) = banks.get(&cache.name) else { continue };
        let every = config.zfs.probe_every.filter(|_| cache.is_written_to());
        let patience = config.zfs.probe_timeout;
        let probe = every.map(|every| Probe::start(Arc::clone(bank), every, patience));
        let source = Arc::clone(source);
        watched.push(Watched {
            cache: cache.name.clone(),
            directory: cache.directory.clone(),
            dataset: cache.dataset(&config.zfs),
            probe: probe.transpose().map_err(AppError::Runtime)?,
            no_room: ingests.get(&cache.name).map(|ingest| ingest.no_room()),
            close: Box::new(move |why| {
                source.vital().set(match why {
                    None => Standing::Well,
                    Some(why) => Standing::Away(why.into()),
                });
            }),
        });
    }
    Watch::start(watched, config.zfs.interval, Arc::clone(metrics)).map_err(AppError::Runtime)
}

/// Has pushes to one cache share blocks with what another has, where the pool can.
pub(super) fn connect_twins(
    ingests: &BTreeMap<String, Arc<Ingest>>,
    banks: &Banks,
    watch: &Arc<Watch>,
    metrics: &Arc<Metrics>,
) {
    for (name, ingest) in ingests {
        let others = banks.iter().filter(|(other, _)| *other != name);
        let twin = |(other, (bank, _)): (&String, &(Arc<Bank>, Arc<Source>))| {
            let (watch, one, other) = (Arc::clone(watch), name.clone(), other.clone());
            let shares_blocks = Box::new(move || watch.report().share_blocks(&one, &other));
            Twin { bank: Arc::clone(bank), shares_blocks }
        };
        ingest.set_twins(others.map(twin).collect(), Arc::clone(metrics));
    }
}

/// Has a source that could not read a file told what its pool says, for the log; a pool that gives
/// nothing at all any more closes the cache first. Where there is no pool to ask, the source judges by
/// how many files fail.
pub(super) fn connect_reports(config: &Config, banks: &Banks, watch: &Arc<Watch>) {
    let lying = |cache: &CacheConfig| Lying {
        cache: cache.name.clone(),
        directory: cache.directory.clone(),
        dataset: cache.dataset(&config.zfs),
    };
    let on_zfs = datasets_of(&config.caches.iter().map(lying).collect::<Vec<_>>());
    for (name, (_, source)) in banks.iter().filter(|(name, _)| on_zfs.contains_key(*name)) {
        // Weakly: the watch holds the sources.
        let (watch, cache) = (Arc::downgrade(watch), name.clone());
        source.vital().report_with(Box::new(move |_| {
            let Some(watch) = watch.upgrade() else { return String::new() };
            watch.look_at_pool_of(&cache)
        }));
    }
}
