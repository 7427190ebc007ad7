//! Views: a cache as it was at a snapshot of its bank.
//!
//! A view has what its bank had and nothing else: the paths of the local store and of parts were never in
//! the snapshot, and what waits in `pending/` is not served from it either. Nothing in it is finished: a
//! commit of many paths that the snapshot cut in two shows those that had their names, references first.

use super::cache::{Cache, Unavailable};
use super::{BankSource, Source, SourceError};
use crate::bank::Bank;
use crate::nix::cache_info::CacheInfo;
use crate::zfs::SnapshotName;

/// Why there is no view.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ViewError {
    /// The cache has no snapshot of this name, for certain.
    #[error("there is no such snapshot")]
    NotThere,
    /// Its dataset cannot be read now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Cache {
    /// The view of this cache at a snapshot. Blocks: ZFS mounts the snapshot for it.
    pub fn open_view(&self, snapshot: &SnapshotName) -> Result<Self, ViewError> {
        let Some(bank) = self.bank_with_snapshots() else { return Err(ViewError::NotThere) };
        let found = bank.at_snapshot(snapshot).map_err(|error| self.unavailable(error))?;
        let source = found.ok_or(ViewError::NotThere)?;
        let info = CacheInfo { store_dir: source.store_dir().clone(), ..self.info.clone() };
        Ok(self.view(snapshot.clone(), info, Source::Bank(source)))
    }

    /// Looks whether `view`, which is one of this cache, is still there. Blocks.
    pub fn look_at_view(&self, view: &Self) -> Result<(), ViewError> {
        let Err(failed) = view.look() else { return Ok(()) };
        let (Some(bank), Some(snapshot)) = (self.bank_with_snapshots(), &view.snapshot) else {
            return Err(ViewError::NotThere);
        };
        match bank.at_snapshot(snapshot) {
            Ok(None) => Err(ViewError::NotThere),
            Ok(Some(_)) => Err(failed.into()),
            Err(error) => Err(self.unavailable(error).into()),
        }
    }

    fn bank_with_snapshots(&self) -> Option<&BankSource> {
        match &**self.own_bank()? {
            Source::Bank(bank) => Some(bank),
            Source::Store(_) => None,
        }
    }
}

impl BankSource {
    /// The bank as it was at a snapshot; `None` where there is none.
    fn at_snapshot(&self, snapshot: &SnapshotName) -> Result<Option<Self>, SourceError> {
        self.vital.check()?;
        let found = self.bank().at_snapshot(snapshot).map_err(super::bank::unavailable)?;
        let Some(bank) = found else { return Ok(None) };
        // What was in it is of the store directory that it says, whichever the bank is for today.
        let store_dir = Bank::store_dir_at(bank.root()).unwrap_or_else(|| self.store_dir().clone());
        Ok(Some(self.of_view(bank, store_dir)))
    }
}
