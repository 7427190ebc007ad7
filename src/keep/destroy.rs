//! Destroying a cache that is a dataset, for good.

use super::release::{HOLD, ReleaseError, Releases};
use crate::index::state::StateError;
use crate::zfs::dataset::{self, Dataset};
use crate::zfs::{DatasetName, NameError, ZfsError};

/// What is about to be destroyed.
#[derive(Debug)]
pub struct Doomed {
    /// Its numbers.
    pub dataset: Dataset,
    /// How many snapshots it has.
    pub snapshots: usize,
    /// Its releases, by name.
    pub releases: Vec<String>,
}

/// Why a cache is not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// A name that would be too long.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The state database cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A release could not be removed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// There is no such dataset.
    #[error("there is no dataset {0}")]
    NotThere(DatasetName),
    /// It has releases, which somebody wanted to keep.
    #[error(
        "the cache {cache} has the releases {}: `snowbank release rm` removes them one by one, and \
         --with-releases all of them with the cache", .names.join(", ")
    )]
    HasReleases {
        /// The cache.
        cache: String,
        /// What they are called.
        names: Vec<String>,
    },
    /// Somebody else holds a snapshot of it.
    #[error("{dataset} has snapshots that are held by {}, who is not us: let go of them first", .tags.join(", "))]
    Held {
        /// The dataset.
        dataset: DatasetName,
        /// The tags of the holds.
        tags: Vec<String>,
    },
}

/// Looks at what would be destroyed, and refuses where somebody needs it.
pub fn examine(of: &Releases<'_>, with_releases: bool) -> Result<Doomed, DestroyError> {
    let found = of.zfs.find_dataset(of.dataset)?;
    let dataset = found.ok_or_else(|| DestroyError::NotThere(of.dataset.clone()))?;
    let releases: Vec<_> = of.list()?.into_iter().map(|release| release.name).collect();
    if !releases.is_empty() && !with_releases {
        return Err(DestroyError::HasReleases { cache: of.cache.into(), names: releases });
    }
    let snapshots = of.zfs.snapshots(of.dataset, &[])?;
    let held: Vec<_> = snapshots
        .iter()
        .filter(|snapshot| snapshot.holds > 0)
        .map(|snapshot| snapshot.snapshot.clone())
        .collect();
    let mut tags: Vec<_> = of.zfs.holds(&held)?.into_iter().map(|hold| hold.tag).collect();
    tags.retain(|tag| tag != HOLD);
    tags.sort_unstable();
    tags.dedup();
    if !tags.is_empty() {
        return Err(DestroyError::Held { dataset: of.dataset.clone(), tags });
    }
    Ok(Doomed { dataset, snapshots: snapshots.len(), releases })
}

/// Destroys it with all its snapshots, and forgets where it was. There is no way back. Takes root while
/// it is mounted.
pub fn destroy(of: &Releases<'_>, doomed: &Doomed) -> Result<(), DestroyError> {
    for release in &doomed.releases {
        of.remove(release)?;
    }
    of.zfs.run(&dataset::destroy(of.dataset, true))?;
    if let Some(directory) = doomed.dataset.mountpoint.path() {
        of.state.forget_place(directory)?;
    }
    Ok(())
}
