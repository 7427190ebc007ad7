//! The datasets that a configuration wants.

use crate::config::Config;
use crate::index::state::STATE_DIRECTORY;
use crate::zfs::account::Account;
use crate::zfs::layout::{Layout, Member};
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
