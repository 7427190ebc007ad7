//! What comes before the first use of a bank, and what must be mounted where it lies.
//!
//! The directory of a dataset that is not mounted is an empty directory, or one that holds what was
//! written there by mistake. It must never be taken for a new bank: clients would be told that
//! nothing is here, and would remember it. So a bank knows what has to be mounted at its directory,
//! and is *away* for as long as it is not. One that is away when the server starts becomes ready at
//! the first look after it was mounted.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::publish::{self, commit::Recovered};
use super::{Bank, BankError};
use crate::nix::cache_info::CacheInfo;
use crate::zfs::DatasetName;
use crate::zfs::mounts::Mounts;

/// What must be mounted at the directory of a bank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mounting {
    /// Nothing: it may be a directory like any other.
    Any,
    /// Some file system of its own, because one was mounted there before.
    Separate,
    /// This dataset.
    Dataset(DatasetName),
}

/// What was last found at the directory.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The device of the file system that was found to be the right one.
    device: Option<u64>,
}

impl Bank {
    /// A bank at `root`, at which nothing is looked yet.
    pub fn at(root: PathBuf, info: CacheInfo, mounting: Mounting, takes_pushes: bool) -> Self {
        Self {
            root,
            info,
            mounting,
            takes_pushes,
            is_ready: false.into(),
            opening: Default::default(),
            unsettled: Default::default(),
        }
    }

    /// Opens the bank at `root`, whatever file system it is on, and makes it if there is none.
    pub fn open(root: PathBuf, info: &CacheInfo) -> Result<Self, BankError> {
        let bank = Self::at(root, info.clone(), Mounting::Any, false);
        bank.open_or_create()?;
        bank.is_ready.store(true, Ordering::Release);
        Ok(bank)
    }

    /// Does what comes before the first use, if it was not done yet: a new bank is made, what an
    /// earlier process left is finished, and what pushes need is prepared. `None` where that was done
    /// before.
    pub fn make_ready(&self) -> Result<Option<Recovered>, BankError> {
        if self.is_ready.load(Ordering::Acquire) {
            return Ok(None);
        }
        if self.mounting != Mounting::Any {
            let found = std::fs::metadata(&self.root).map_err(|error| self.io_error(error))?;
            self.check_mounted(found.dev())?;
        }
        let _alone = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ready.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.open_or_create()?;
        let recovered = self.recover()?;
        if self.takes_pushes {
            self.prepare_for_pushes()?;
        }
        self.is_ready.store(true, Ordering::Release);
        Ok(Some(recovered))
    }

    /// Whether the file system of `device`, on which the bank's directory is, is the right one.
    pub(super) fn check_mounted(&self, device: u64) -> Result<(), BankError> {
        if self.mounting == Mounting::Any {
            return Ok(());
        }
        let mut checked = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.device == Some(device) {
            return Ok(());
        }
        match what_is_wrong(&self.root, &self.mounting).map_err(|error| self.io_error(error))? {
            None => {
                checked.device = Some(device);
                Ok(())
            }
            Some(why) => Err(BankError::NotMounted { root: self.root.clone(), why }),
        }
    }

    fn open_or_create(&self) -> Result<(), BankError> {
        match self.check_store_dir(&self.info.store_dir) {
            Ok(()) => publish::make_directories(&self.root),
            Err(BankError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                publish::create(&self.root, &self.info)
            }
            Err(error) => Err(error),
        }
    }

    fn io_error(&self, source: io::Error) -> BankError {
        match source.kind() {
            io::ErrorKind::NotFound => BankError::Away(self.root.clone()),
            _ => BankError::Io { path: self.root.clone(), source },
        }
    }
}

/// Whether a file system of its own is mounted at `directory`.
pub fn is_mount_point(directory: &Path) -> io::Result<bool> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    Ok(std::fs::metadata(directory)?.dev() != std::fs::metadata(parent)?.dev())
}

fn what_is_wrong(root: &Path, mounting: &Mounting) -> io::Result<Option<String>> {
    match mounting {
        Mounting::Any => Ok(None),
        Mounting::Separate if is_mount_point(root)? => Ok(None),
        Mounting::Separate => Ok(Some(
            "a file system of its own was mounted here, and is not any more; mount it, or say \
             `snowbank cache forget` if it is not to come back"
                .into(),
        )),
        Mounting::Dataset(wanted) => {
            // The kernel names mount points without symbolic links.
            let (directory, mounts) = (std::fs::canonicalize(root)?, Mounts::read()?);
            Ok(match mounts.at(&directory).and_then(|mount| mount.dataset()) {
                Some(found) if found == *wanted => None,
                Some(found) => {
                    Some(format!("the dataset {found} is mounted here and not {wanted}"))
                }
                None => Some(format!(
                    "the dataset {wanted} is not mounted here; `zfs mount {wanted}` as root does it, \
                     and `snowbank zfs init` makes one that is missing"
                )),
            })
        }
    }
}
