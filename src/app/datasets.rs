//! The datasets of a configuration: those that it wants, and the one that each cache is.

use crate::config::{CacheConfig, Config};
use crate::index::state::STATE_DIRECTORY;
use crate::keep::snapshots::Scheduled;
use crate::zfs::account::Account;
use crate::zfs::layout::{Layout, Member};
use crate::zfs::mounts::Mounts;
use crate::zfs::name::{DatasetName, NameError};
use crate::zfs::properties::Role;

/// What is wanted: a dataset a cache, mounted where its bank is, and one for the state, below `parent`;
/// all of it is given to `account`.
pub fn layout(
    config: &Config,
    parent: &DatasetName,
    account: Option<Account>,
) -> Result<Layout, NameError> {
    let mut members = vec![Member {
        dataset: parent.child(STATE_DIRECTORY)?,
        role: Role::State,
        mountpoint: config.data_dir.join(STATE_DIRECTORY),
        quota: None,
    }];
    for cache in &config.caches {
        members.push(Member {
            dataset: parent.child(&cache.name)?,
            role: Role::Cache,
            mountpoint: cache.directory.clone(),
            quota: cache.max_size,
        });
    }
    Ok(Layout { parent: parent.clone(), members, directory: config.data_dir.clone(), account })
}

/// The dataset that a cache is: by the configuration, else the one that is mounted at its directory.
/// One that is mounted above is more than the cache, and not meant.
pub fn dataset_of(config: &Config, cache: &CacheConfig) -> Option<DatasetName> {
    cache.dataset(&config.zfs).or_else(|| {
        let directory = std::fs::canonicalize(&cache.directory).ok()?;
        Mounts::read().ok()?.at(&directory)?.dataset()
    })
}

/// The caches of which snapshots are made by themselves.
pub fn scheduled(config: &Config) -> Vec<Scheduled> {
    let scheduled = |cache: &CacheConfig| {
        let every = cache.snapshot_every?;
        let Some(dataset) = dataset_of(config, cache) else {
            tracing::error!(
                cache = cache.name,
                "snapshot_every is set, and the cache is no dataset"
            );
            return None;
        };
        let (cache, retention) = (cache.name.clone(), cache.snapshot_keep);
        Some(Scheduled { cache, dataset, every, retention })
    };
    config.caches.iter().filter_map(scheduled).collect()
}
