//! One run at a time for each place.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Location, ReplicateError};

/// Held for as long as this lives, and let go of by the system when the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the copy at `to`, in a directory that this process may write to.
    pub fn take(directory: &Path, to: &Location) -> Result<Self, ReplicateError> {
        let file = path(directory, to);
        let failed = |source| ReplicateError::Lock { file: file.clone(), source };
        // It stays when it is let go of: removing it would let two hold two files of one name. Whoever may
        // read it may lock it, so that it does not matter who of root and the service was here first.
        let opened = match File::open(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::options().write(true).create(true).truncate(false).open(&file)
            }
            opened => opened,
        };
        let opened = opened.map_err(failed)?;
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: opened }),
            Err(Errno::WOULDBLOCK) => Err(ReplicateError::Busy { to: to.clone(), lock: file }),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

/// Two places whose names differ only in characters that a file cannot have share a lock, which is
/// needless and harmless.
fn path(directory: &Path, to: &Location) -> PathBuf {
    let plain = |character: char| match character {
        '/' | ':' | '@' => '_',
        other => other,
    };
    let name: String = to.to_string().chars().map(plain).collect();
    directory.join(format!("replicate-{name}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_run_at_a_time_and_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let (to, other) = ("root@b:tank/a".parse().unwrap(), "tank/a".parse().unwrap());
        let lock = Lock::take(directory.path(), &to).unwrap();
        let error = Lock::take(directory.path(), &to).unwrap_err();
        assert!(matches!(error, ReplicateError::Busy { .. }), "{error}");
        assert!(error.to_string().contains("replicate-root_b_tank_a.lock"), "{error}");
        let _other = Lock::take(directory.path(), &other).unwrap();
        drop(lock);
        Lock::take(directory.path(), &to).unwrap();
        let nowhere = Lock::take(&directory.path().join("no"), &to).unwrap_err();
        assert!(matches!(nowhere, ReplicateError::Lock { .. }), "{nowhere}");
    }
}
