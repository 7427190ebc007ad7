//! One at a time: a lock that the programs that are started hold as well.
//!
//! Whoever is killed here leaves a `mkfs` behind that goes on writing. It has inherited the lock, so
//! that the next run waits for it instead of working beside it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Where the lock is: a file system in memory, which does not outlive the machine's run.
pub const FILE: &str = "/run/snowbank-format.lock";
/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// The lock, held until it is dropped and every program that was started meanwhile has ended.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error(
        "another `snowbank format`, or a program that one has started, still works after {} s", .0.as_secs()
    )]
    Busy(Duration),
    /// The system refused.
    #[error("{FILE}: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock, or waits `patience` for it.
    pub fn take(patience: Duration) -> Result<Self, LockError> {
        Self::take_at(Path::new(FILE), patience)
    }

    fn take_at(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        let start = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if start.elapsed() < patience => {
                    std::thread::sleep(TRY_EVERY);
                }
                Err(Errno::WOULDBLOCK) => return Err(LockError::Busy(patience)),
                Err(errno) => return Err(LockError::Io(errno.into())),
            }
        }
        // The programs that are started inherit it.
        fcntl_setfd(&file, FdFlags::empty()).map_err(io::Error::from)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zfs::Zfs;
    use crate::zfs::command::{Command, Program};

    #[test]
    fn the_lock_is_held_by_what_was_started_after_its_owner_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Lock::take_at(&path, Duration::ZERO).unwrap();
        assert!(matches!(Lock::take_at(&path, Duration::ZERO), Err(LockError::Busy(_))));
        // A program that goes on after the one that was waited for has ended, and is ended by us.
        let fifo = directory.path().join("fifo");
        let script = format!("mkfifo {0}; (read line < {0}) >/dev/null 2>&1 &", fifo.display());
        let zfs = Zfs::not_asked();
        zfs.run(&Command::new(Program::Other("sh"), ["-c".to_owned(), script])).unwrap();
        drop(lock);
        assert!(matches!(Lock::take_at(&path, Duration::ZERO), Err(LockError::Busy(_))));
        std::fs::write(&fifo, "go\n").unwrap();
        Lock::take_at(&path, Duration::from_secs(20)).unwrap();
    }
}
