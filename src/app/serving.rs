//! Whether a server runs on a data directory: a lock that each holds for as long as it runs, whoever may be several.
//! What must not be done beside one is done by whoever has the lock alone.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::bank::BankError;
use crate::bank::publish::private::{make_private_directory, make_private_file};
use crate::index::state::STATE_DIRECTORY;

const FILE: &str = "serving.lock";

/// Held by a server.
pub(super) struct Serving(#[expect(dead_code, reason = "it is held, not read")] File);

/// Held by whoever runs while no server does.
pub struct Alone(File);

/// Says that a server runs from now on. Waits for whoever does what must not be done beside one.
pub(super) fn serve(data_dir: &Path) -> Result<Serving, BankError> {
    let file = open(data_dir)?;
    flock(&file, FlockOperation::LockShared).map_err(|errno| failed(data_dir, errno.into()))?;
    Ok(Serving(file))
}

/// Keeps servers from starting, if none runs; nothing if one does.
pub fn alone(data_dir: &Path) -> Result<Option<Alone>, BankError> {
    let file = open(data_dir)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Alone(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(data_dir, errno.into())),
    }
}

impl Alone {
    /// Lets a server start that waits to. Says whether there still is none.
    pub fn goes_on(&self) -> bool {
        flock(&self.0, FlockOperation::Unlock)
            .and_then(|()| flock(&self.0, FlockOperation::NonBlockingLockExclusive))
            .is_ok()
    }
}

fn open(data_dir: &Path) -> Result<File, BankError> {
    let directory = data_dir.join(STATE_DIRECTORY);
    make_private_directory(&directory)?;
    let path = directory.join(FILE);
    make_private_file(&path)?;
    File::open(&path).map_err(|source| BankError::Io { path, source })
}

fn failed(data_dir: &Path, source: io::Error) -> BankError {
    BankError::Io { path: data_dir.join(STATE_DIRECTORY).join(FILE), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_alone_beside_a_server_and_servers_are_beside_each_other() {
        let data = tempfile::tempdir().unwrap();
        let alone_first = alone(data.path()).unwrap().unwrap();
        assert!(alone(data.path()).unwrap().is_none() && alone_first.goes_on());
        drop(alone_first);
        let (one, other) = (serve(data.path()).unwrap(), serve(data.path()).unwrap());
        drop(one);
        assert!(alone(data.path()).unwrap().is_none());
        drop(other);
        let alone = alone(data.path()).unwrap().unwrap();
        // A server that waits comes in when it is let.
        let waits = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| serve(data.path()).unwrap());
            while alone.goes_on() {
                std::thread::yield_now();
            }
            waiting.join().unwrap()
        });
        drop(waits);
    }
}
