//! The datasets of a configuration: those that it wants, and the one that each cache is.

use crate::config::{CacheConfig, Config};
use crate::index::state::STATE_DIRECTORY;
use crate::keep::snapshots::Scheduled;
use crate::zfs::account::Account;
use crate::zfs::layout::{Copied, Files, Found, Layout, LayoutError, Member, Step, Watcher};
use crate::zfs::mounts::Mounts;
use crate::zfs::name::{DatasetName, NameError};
use crate::zfs::properties::Role;
use crate::zfs::{Command, Zfs, ZfsError};

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

/// Has the datasets as the configuration wants them, as far as that is allowed. Where one is missing, root
/// makes it, as `snowbank zfs init` does; where all are there only quotas are set, which are delegated:
/// one that somebody has unmounted stays so. What cannot be done is logged, and the caches that it
/// concerns are away.
pub(super) fn prepare(config: &Config) {
    let Some(parent) = &config.zfs.dataset else { return };
    if let Err(error) = try_to_prepare(config, parent) {
        tracing::error!("the datasets below {parent} are not as they should be: {error}");
    }
}

fn try_to_prepare(config: &Config, parent: &DatasetName) -> Result<(), LayoutError> {
    let zfs = Zfs::find()?;
    let layout = layout(config, parent, None).map_err(ZfsError::from)?;
    let plan = layout.plan(&Found::look(&zfs, &layout)?, Files::Refuse)?;
    let there = zfs.names()?;
    let is_missing = layout.members.iter().any(|member| !there.contains(&member.dataset));
    if is_missing && rustix::process::geteuid().is_root() {
        return plan.carry_out(&zfs, &mut Logged);
    }
    for step in plan.steps {
        if let Step::Run(command) = &step
            && is_about_a_quota(command)
        {
            tracing::info!("{step}");
            zfs.run(command)?;
        }
    }
    if is_missing {
        tracing::error!("a dataset is missing below {parent}: run `snowbank zfs init` as root");
    }
    Ok(())
}

fn is_about_a_quota(command: &Command) -> bool {
    matches!(command.arguments(), [set, property, _] if set == "set" && property.starts_with("quota="))
}

/// Writes each step to the log.
struct Logged;

impl Watcher for Logged {
    fn begin(&mut self, step: &Step) {
        tracing::info!("{step}");
    }

    fn copied(&mut self, _: Copied) {}
}
