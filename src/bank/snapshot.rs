//! A bank as it was at a snapshot of its dataset.
//!
//! A bank's directory is where its dataset is mounted, so its snapshots are the directories below
//! `.zfs/snapshot/` in it, which ZFS mounts when somebody first looks into one, and unmounts when
//! nobody did for a while.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Bank, BankError};
use crate::nix::cache_info;
use crate::zfs::SnapshotName;

/// Where ZFS shows the snapshots of a dataset, below its mount point.
const SNAPSHOTS: &str = ".zfs/snapshot";

impl Bank {
    /// The bank as it was at a snapshot, to be read only; `None` where there is no such snapshot, or
    /// none of a bank.
    ///
    /// That there is none is said only while the bank itself is there: before its dataset is mounted
    /// no snapshot of it can be seen.
    pub fn at_snapshot(&self, name: &SnapshotName) -> Result<Option<Self>, BankError> {
        let live = self.stamp()?;
        let root = self.root().join(SNAPSHOTS).join(name.as_str());
        let found = match look(&root) {
            Ok(found) => found,
            Err(source) => return Err(BankError::Io { path: root, source }),
        };
        match found {
            Found::Bank => Ok(Some(Self::of_others(root, self.info.clone()))),
            // Nothing can be seen in it, and it is the directory of the live file system: ZFS has not
            // mounted it, or not where this process could see it.
            Found::Without { device } if device == live.device() => {
                Err(BankError::SnapshotNotMounted(root))
            }
            Found::Without { .. } => Ok(None),
            // Unless the dataset was unmounted since we looked.
            Found::Nothing => self.stamp().map(|_| None),
        }
    }
}

/// What is at the place of a snapshot.
enum Found {
    Nothing,
    /// A directory that is no bank, on this device.
    Without {
        device: u64,
    },
    Bank,
}

fn look(root: &Path) -> io::Result<Found> {
    match root.symlink_metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(Found::Nothing),
        Err(error) if is_absence(&error) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    }
    // A name in it has ZFS mount the snapshot.
    match std::fs::metadata(root.join(cache_info::NAME)) {
        Ok(_) => return Ok(Found::Bank),
        Err(error) if is_absence(&error) => {}
        Err(error) => return Err(error),
    }
    match root.join(".").metadata() {
        Ok(found) => Ok(Found::Without { device: found.dev() }),
        Err(error) if is_absence(&error) => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::cache_info::CacheInfo;
    use crate::nix::store_path::StoreDir;

    fn name(text: &str) -> SnapshotName {
        SnapshotName::parse(text).unwrap()
    }

    /// A bank whose snapshots are directories of the same file system.
    fn bank(directory: &Path) -> Bank {
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        Bank::open(directory.join("bank"), &info).unwrap()
    }

    #[test]
    fn a_snapshot_that_does_not_exist_is_told_from_a_bank_that_is_away() {
        let directory = tempfile::tempdir().unwrap();
        let bank = bank(directory.path());
        assert!(bank.at_snapshot(&name("x")).unwrap().is_none());
        std::fs::remove_file(bank.root().join(cache_info::NAME)).unwrap();
        assert!(matches!(bank.at_snapshot(&name("x")), Err(BankError::Away(_))));
    }

    #[test]
    fn a_snapshot_is_a_bank_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let bank = bank(directory.path());
        let snapshot = bank.root().join(".zfs/snapshot/x");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::copy(bank.root().join(cache_info::NAME), snapshot.join(cache_info::NAME)).unwrap();
        let view = bank.at_snapshot(&name("x")).unwrap().unwrap();
        assert_eq!(view.root(), snapshot);
        assert!(view.stamp().is_ok());
    }

    #[test]
    fn a_snapshot_that_is_not_mounted_here_is_never_an_absence() {
        let directory = tempfile::tempdir().unwrap();
        let bank = bank(directory.path());
        // An empty directory on the device of the bank is what a process sees whose mount namespace
        // the snapshot is not mounted in.
        std::fs::create_dir_all(bank.root().join(".zfs/snapshot/x")).unwrap();
        assert!(matches!(bank.at_snapshot(&name("x")), Err(BankError::SnapshotNotMounted(_))));
    }

    #[test]
    fn a_file_or_a_link_in_the_place_of_a_snapshot_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let bank = bank(directory.path());
        std::fs::create_dir_all(bank.root().join(SNAPSHOTS)).unwrap();
        std::fs::write(bank.root().join(".zfs/snapshot/file"), "").unwrap();
        std::os::unix::fs::symlink(bank.root(), bank.root().join(".zfs/snapshot/link")).unwrap();
        for other in ["file", "link"] {
            assert!(bank.at_snapshot(&name(other)).unwrap().is_none(), "{other}");
        }
    }
}
