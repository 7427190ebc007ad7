//! Carrying a plan out.

use std::fs;
use std::io;
use std::os::unix::fs::chown;

use super::{Copied, LayoutError, Plan, Step, copy};
use crate::zfs::Zfs;

/// What is told while a plan is carried out.
pub trait Watcher {
    /// This step begins.
    fn begin(&mut self, step: &Step);
    /// So much of a copy is done.
    fn copied(&mut self, copied: Copied);
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Does step after step; the first that fails ends it. A new plan then begins where this one ended.
    pub fn carry_out(&self, zfs: &Zfs, watcher: &mut dyn Watcher) -> Result<(), LayoutError> {
        for step in &self.steps {
            watcher.begin(step);
            step.take(zfs, watcher)?;
        }
        Ok(())
    }
}

impl Step {
    fn take(&self, zfs: &Zfs, watcher: &mut dyn Watcher) -> Result<(), LayoutError> {
        match self {
            Self::Run(command) => Ok(zfs.run(command)?),
            Self::MakeDirectory(path) => fs::create_dir_all(path).map_err(LayoutError::io(path)),
            Self::RemoveDirectory(path) => match fs::remove_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed.map_err(LayoutError::io(path)),
            },
            Self::Give(path, account) => {
                chown(path, Some(account.uid), Some(account.gid)).map_err(LayoutError::io(path))
            }
            Self::Copy { from, to, account } => {
                let progress = &mut |copied| watcher.copied(copied);
                copy::copy(from, to, account.as_ref(), progress).map(drop)
            }
            Self::Rename(from, to) => {
                fs::rename(from, to).map_err(LayoutError::io(from))?;
                // Before the mount point moves here, durably and for itself.
                let parent = from.parent().unwrap_or(from);
                let synced = fs::File::open(parent).and_then(|directory| directory.sync_all());
                synced.map_err(LayoutError::io(parent))
            }
        }
    }
}
