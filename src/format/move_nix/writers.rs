//! Keeps everybody from writing to the store for a while.
//!
//! The daemon is stopped through systemd, its socket first, so that no client starts it again. What
//! writes without the daemon, such as `nix-env` as root, holds a lock on `db/big-lock` for as long as it
//! has the store open: shared, and Nix itself takes it alone to migrate the database. So do we: whoever
//! has the store open is waited for, and whoever opens it after us waits for us. No list of processes
//! has to be right for that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::zfs::disk::host;
use crate::zfs::{Zfs, ZfsError};

/// What starts the daemon, and the daemon.
pub const UNITS: [&str; 2] = ["nix-daemon.socket", "nix-daemon.service"];
/// How long whoever has the store open is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// Why somebody may still write.
#[derive(Debug, thiserror::Error)]
pub enum WritersError {
    /// Somebody has the store open.
    #[error(
        "somebody has the Nix store open for more than {} s (`fuser -v {}`): wait for it, or stop it; \
         nothing was changed", after.as_secs(), lock.display()
    )]
    Busy {
        /// The file that they have locked.
        lock: PathBuf,
        /// How long they were waited for.
        after: Duration,
    },
    /// The lock cannot be opened, or the marker not be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon cannot be stopped or started.
    #[error(transparent)]
    Systemd(#[from] ZfsError),
}

/// Nobody writes while it lives. Dropped, it starts the daemon again.
pub struct Writers<'a> {
    zfs: &'a Zfs,
    /// There while they are stopped.
    marker: &'a Path,
    _lock: File,
}

impl<'a> Writers<'a> {
    /// Stops the daemon of the store at `nix`, and waits for everybody else. As long as it is stopped
    /// there is a file, the `marker`, by which the next run knows of it if this one is killed.
    pub fn stop(zfs: &'a Zfs, nix: &Path, marker: &'a Path) -> Result<Self, WritersError> {
        let units = zfs.units(&UNITS)?;
        if !units.is_empty() {
            fs::write(marker, "").map_err(io_error(marker))?;
            zfs.run(&host::stop(&units))?;
        }
        match lock(&nix.join("var/nix/db/big-lock"), PATIENCE) {
            Ok(lock) => Ok(Self { zfs, marker, _lock: lock }),
            Err(error) => {
                start_what_was_stopped(zfs, marker)?;
                Err(error)
            }
        }
    }

    /// Starts the daemon.
    pub fn start(self) -> Result<(), WritersError> {
        start_what_was_stopped(self.zfs, self.marker)
    }
}

impl Drop for Writers<'_> {
    fn drop(&mut self) {
        // The marker is gone where it was started already.
        if let Err(error) = start_what_was_stopped(self.zfs, self.marker) {
            tracing::error!(%error, "the Nix daemon was not started again");
        }
    }
}

/// Starts what starts the daemon, its socket, or itself where it has none, if a move has stopped it: this
/// one, or one that was killed.
pub(super) fn start_what_was_stopped(zfs: &Zfs, marker: &Path) -> Result<(), WritersError> {
    if !marker.try_exists().map_err(io_error(marker))? {
        return Ok(());
    }
    if let Some(unit) = zfs.units(&UNITS)?.first() {
        zfs.run(&host::start(&[unit]))?;
    }
    fs::remove_file(marker).map_err(io_error(marker))
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> WritersError {
    move |source| WritersError::Io { path: path.into(), source }
}

/// Takes Nix's lock alone. A store that was never opened has none, and nobody who could hold it.
fn lock(path: &Path, patience: Duration) -> Result<File, WritersError> {
    let failed = io_error(path);
    let file = File::open(path).map_err(&failed)?;
    let start = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => std::thread::sleep(TRY_EVERY),
            Err(Errno::WOULDBLOCK) => {
                return Err(WritersError::Busy { lock: path.into(), after: patience });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zfs::testing::Fake;

    #[test]
    fn whoever_has_the_store_open_is_waited_for_and_then_named_by_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big-lock");
        fs::write(&path, "").unwrap();
        let reader = File::open(&path).unwrap();
        flock(&reader, FlockOperation::LockShared).unwrap();
        let error = lock(&path, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("fuser -v "), "{error}");
        drop(reader);
        let held = lock(&path, Duration::ZERO).unwrap();
        let late = File::open(&path).unwrap();
        let shared = flock(&late, FlockOperation::NonBlockingLockShared);
        assert_eq!(shared, Err(Errno::WOULDBLOCK), "who opens it now waits");
        drop(held);
    }

    #[test]
    fn the_daemon_is_started_again_whatever_happens() {
        let nix = tempfile::tempdir().unwrap();
        let db = nix.path().join("var/nix/db");
        fs::create_dir_all(&db).unwrap();
        fs::write(db.join("big-lock"), "").unwrap();
        let log = nix.path().join("log");
        let fake = Fake::new("exit 1");
        let script = format!(
            "if [ $1 = show ]; then echo LoadState=loaded; else echo $* >> {}; fi",
            log.display()
        );
        let zfs = fake.zfs.with_program("systemctl", fake.install("systemctl", &script));
        let said = || fs::read_to_string(&log).unwrap();
        let stop = "stop nix-daemon.socket nix-daemon.service\n";
        let marker = nix.path().join("marker");
        let stop_them = || Writers::stop(&zfs, nix.path(), &marker);
        let writers = stop_them().unwrap();
        assert_eq!(said(), stop);
        assert!(marker.exists());
        drop(writers);
        assert!(!marker.exists());
        assert_eq!(said(), format!("{stop}start nix-daemon.socket\n"));
        fs::remove_file(&log).unwrap();
        stop_them().unwrap().start().unwrap();
        assert_eq!(said(), format!("{stop}start nix-daemon.socket\n"), "and only once");
        fs::remove_file(db.join("big-lock")).unwrap();
        fs::remove_file(&log).unwrap();
        assert!(stop_them().is_err());
        assert_eq!(said(), format!("{stop}start nix-daemon.socket\n"));
        fs::remove_file(&log).unwrap();
        start_what_was_stopped(&zfs, &marker).unwrap();
        assert!(!log.exists(), "whoever stopped it himself finds it stopped");
        fs::write(&marker, "").unwrap();
        start_what_was_stopped(&zfs, &marker).unwrap();
        assert_eq!(said(), "start nix-daemon.socket\n", "what was killed had stopped it");
    }
}
