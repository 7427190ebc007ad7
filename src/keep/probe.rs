//! Whether the disks under a cache still answer.
//!
//! A pool whose only disk was pulled stays ONLINE, answers `zpool status`, and hangs everybody who
//! waits for a write, beyond the reach of SIGKILL. Nothing but a write shows it: so in each cache that
//! takes pushes something small is written and synced now and then, by a thread of its own that may
//! hang, and everybody else looks at how long it has been at it.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::bank::{Bank, BankError, is_out_of_space};

/// How the disks under a cache are, by the last probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// They answer, or were not asked yet.
    Well,
    /// There is no room, not even for a few bytes; reads go on.
    Full,
    /// The file system is read-only; reads go on.
    ReadOnly,
    /// The bank is not there: not mounted.
    Away,
    /// A write was refused.
    Failing(String),
    /// A write has not come back for so long.
    Stuck(Duration),
}

/// A bank that is probed for as long as this lives.
pub struct Probe {
    /// How long a write may take before the disks are taken to be gone.
    patience: Duration,
    shared: Arc<Mutex<Shared>>,
    /// Dropped, it ends the thread.
    _end: Sender<()>,
}

struct Shared {
    began: Option<Instant>,
    last: Pulse,
}

impl Probe {
    /// Probes a bank at once and then each `every`. A write that takes longer than `patience` means that
    /// the disks are gone.
    pub fn start(bank: Arc<Bank>, every: Duration, patience: Duration) -> io::Result<Self> {
        Self::run(every, patience, move || bank.probe())
    }

    fn run(
        every: Duration,
        patience: Duration,
        probe: impl Fn() -> Result<(), BankError> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared { began: None, last: Pulse::Well }));
        let (end, ended) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("probe".into()).spawn(move || {
            loop {
                lock(&theirs).began = Some(Instant::now());
                let pulse = pulse_of(probe());
                *lock(&theirs) = Shared { began: None, last: pulse };
                if ended.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { patience, shared, _end: end })
    }

    /// How the disks are now. Waits for nobody.
    pub fn pulse(&self) -> Pulse {
        let shared = lock(&self.shared);
        match shared.began.map(|began| began.elapsed()) {
            Some(waited) if waited > self.patience => Pulse::Stuck(waited),
            _ => shared.last.clone(),
        }
    }
}

fn pulse_of(probed: Result<(), BankError>) -> Pulse {
    match probed {
        Ok(()) => Pulse::Well,
        Err(BankError::Away(_) | BankError::NotMounted { .. }) => Pulse::Away,
        Err(BankError::Io { source, .. }) if is_out_of_space(&source) => Pulse::Full,
        Err(BankError::Io { source, .. }) => match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Pulse::ReadOnly,
            // The directory for unfinished files is gone, and so is all the rest.
            io::ErrorKind::NotFound => Pulse::Away,
            _ => Pulse::Failing(source.to_string()),
        },
        Err(error) => Pulse::Failing(error.to_string()),
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::io::Errno;

    use super::*;

    fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "it never came");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn refused(errno: Errno) -> Result<(), BankError> {
        Err(BankError::Io { path: "tmp".into(), source: errno.into() })
    }

    #[test]
    fn what_the_system_says_is_told_apart() {
        for (errno, pulse) in [
            (Errno::DQUOT, Pulse::Full),
            (Errno::NOSPC, Pulse::Full),
            (Errno::ROFS, Pulse::ReadOnly),
            (Errno::NOENT, Pulse::Away),
        ] {
            assert_eq!(pulse_of(refused(errno)), pulse);
        }
        assert!(matches!(pulse_of(refused(Errno::IO)), Pulse::Failing(_)));
        assert_eq!(pulse_of(Err(BankError::Away(PathBuf::new()))), Pulse::Away);
    }

    #[test]
    fn a_write_that_hangs_shows_while_it_hangs_and_is_well_again_after_it() {
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let patience = Duration::from_millis(50);
        let probe = Probe::run(Duration::from_millis(1), patience, move || {
            // The first probe hangs until it is let go; after that nothing is in the way.
            let _ = wait.lock().unwrap().recv();
            Ok(())
        })
        .unwrap();
        until(|| matches!(probe.pulse(), Pulse::Stuck(waited) if waited > patience));
        drop(go_on);
        until(|| probe.pulse() == Pulse::Well);
    }

    #[test]
    fn nothing_is_probed_any_more_once_it_is_dropped() {
        let ended = Arc::new(AtomicUsize::new(0));
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Count(Arc::clone(&ended));
        let probe = Probe::run(Duration::from_secs(3600), Duration::from_secs(1), move || {
            let _ = &count;
            Ok(())
        });
        drop(probe);
        until(|| ended.load(Ordering::SeqCst) == 1);
    }
}
