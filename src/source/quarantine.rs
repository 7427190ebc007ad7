//! Files of a bank that the disk does not give back, and what is done about them.
//!
//! A read error (`EIO` is what ZFS says of a damaged block) is looked at again: the file is opened anew and
//! the same part read once more, because an open file also fails when its file system was rolled back.
//! What fails again is answered as absent from then on, so that clients go elsewhere, until
//!
//! - the file is another one, because it was healed or pushed again; this is seen when it is asked for, or
//! - it can be read from its first byte to its last, which is tried after `RETRY`, and then ever later.
//!
//! Where everything fails it is no absence but a failure of the whole source: somebody who watches the
//! pool says so ([`Vital`]), the mark of the bank cannot be read either, or too many files fail at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::SourceError;
use super::storm::Storm;
use super::vital::Vital;
use crate::bank::{Bank, BankError, is_read_error, open_regular};
use crate::fault;

/// How long a file is left alone before it is tried again.
const RETRY: Duration = Duration::from_secs(600);
/// Each time it fails it is left alone twice as long, at most this.
const MAX_RETRY: Duration = Duration::from_secs(6 * 3600);
/// At most this many files are held; beyond it the one held longest is tried again early.
const MAX_HELD: usize = 10_000;
/// How much of a file is read at once when it is tried again.
const READ_BUFFER: usize = 256 * 1024;

/// The files of one bank that cannot be read, by their names in it.
pub struct Quarantine {
    bank: Arc<Bank>,
    vital: Arc<Vital>,
    storm: Storm,
    held: Mutex<BTreeMap<String, Held>>,
    /// How many they are; read without a lock by everybody who asks for anything.
    count: AtomicUsize,
    version: AtomicU64,
    errors: OnceLock<IntCounter>,
}

struct Held {
    file: Identity,
    since: Instant,
    next_try: Instant,
    pause: Duration,
}

/// Which file has a name, and since when it has its content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    Known {
        device: u64,
        inode: u64,
        size: u64,
        changed: (i64, i64),
    },
    Gone,
    /// Not even that can be read.
    Unknown,
}

/// What came of reading a file once more.
enum Reread {
    Well,
    Gone,
    Failed(io::Error),
}

impl Quarantine {
    /// One without files, of a bank that stands as `vital` says.
    pub fn new(bank: Arc<Bank>, vital: Arc<Vital>) -> Self {
        Self {
            bank,
            vital,
            storm: Storm::default(),
            held: Mutex::default(),
            count: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            errors: OnceLock::new(),
        }
    }

    /// Counts read errors in `counter`; the first who says so stays.
    pub fn count_with(&self, counter: IntCounter) {
        let _ = self.errors.set(counter);
    }

    /// How many files are held.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes whenever a file is taken in or let go of.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The names of all that is held.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Why a file is answered as absent, if it is. One that is another file by now is let go of.
    pub(super) fn holds(&self, name: &str) -> Option<SourceError> {
        if self.is_empty() {
            return None;
        }
        let file = self.lock().get(name).map(|held| held.file)?;
        let now = self.identify(name);
        if now != Identity::Unknown && now != file {
            self.lift(name);
            return None;
        }
        Some(SourceError::Damaged(format!("{name} could not be read, and is in quarantine")))
    }

    /// Says what it means that a part of a file could not be read, and takes the file in where it means
    /// that. Blocks.
    pub(super) fn failed(&self, name: &str, part: Range<u64>, error: &io::Error) -> SourceError {
        if let Some(errors) = self.errors.get() {
            errors.inc();
        }
        let path = self.bank.root().join(name);
        let error = match self.read_again(name, part) {
            Reread::Well => {
                let why = format!("{}: {error}; a moment later it could be read", path.display());
                return SourceError::Unavailable(why);
            }
            Reread::Gone => return SourceError::Damaged(format!("{name} is gone")),
            Reread::Failed(again) => again,
        };
        let why = format!("{}: {error}", path.display());
        if !is_read_error(&error) {
            return SourceError::Unavailable(why);
        }
        // Read for its bytes: that of a pool which is gone may still be known by name.
        if self.bank.read_mark().is_err() {
            return SourceError::Unavailable(format!("{why}, and nothing else there can be read"));
        }
        if self.lock().contains_key(name) {
            return SourceError::Damaged(why);
        }
        let report = self.vital.ask(&path);
        if let Err(away) = self.vital.check() {
            return away;
        }
        if !self.vital.is_watched() && self.storm.strike(name, Instant::now()) {
            return SourceError::Unavailable(format!("{why}, and so could too many others not"));
        }
        let report = report.filter(|said| !said.is_empty());
        let report = report.map_or_else(String::new, |said| format!(". The pool says: {said}"));
        if self.take_in(name) {
            tracing::error!("cannot be read, and is answered as not there: {why}{report}");
        }
        SourceError::Damaged(why)
    }

    /// Lets go of all that are other files by now.
    pub fn look_again(&self) {
        for name in self.names() {
            let _lifted = self.holds(&name);
        }
    }

    /// Reads the files whole whose time it is, and lets go of those that can be read. Blocks, for as long
    /// as that takes.
    pub fn retry(&self, now: Instant) {
        let due: Vec<String> = {
            let held = self.lock();
            let due = held.iter().filter(|(_, held)| held.next_try <= now);
            due.map(|(name, _)| name.clone()).collect()
        };
        for name in due {
            if self.vital.check().is_err() {
                return;
            }
            self.try_again(&name);
        }
    }

    /// Reads a file whole, and lets go of it where that goes well.
    pub fn try_again(&self, name: &str) -> bool {
        match self.read_again(name, 0..u64::MAX) {
            Reread::Well => {
                tracing::info!(file = name, "can be read again");
                self.lift(name);
                true
            }
            Reread::Gone => {
                self.lift(name);
                true
            }
            Reread::Failed(_) => {
                if let Some(held) = self.lock().get_mut(name) {
                    held.pause = (held.pause * 2).min(MAX_RETRY);
                    held.next_try = Instant::now() + held.pause;
                }
                false
            }
        }
    }

    /// Says whether it was not held before.
    fn take_in(&self, name: &str) -> bool {
        let (file, now) = (self.identify(name), Instant::now());
        let mut held = self.lock();
        if held.len() >= MAX_HELD
            && let Some(oldest) =
                held.iter().min_by_key(|(_, held)| held.since).map(|(name, _)| name.clone())
        {
            held.remove(&oldest);
        }
        let entry = Held { file, since: now, next_try: now + RETRY, pause: RETRY };
        let is_new = held.insert(name.to_owned(), entry).is_none();
        self.changed(&held);
        is_new
    }

    fn lift(&self, name: &str) {
        let mut held = self.lock();
        if held.remove(name).is_some() {
            self.changed(&held);
        }
    }

    fn changed(&self, held: &BTreeMap<String, Held>) {
        self.count.store(held.len(), Ordering::Release);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn identify(&self, name: &str) -> Identity {
        match self.path(name).symlink_metadata() {
            Ok(found) => Identity::Known {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                changed: (found.mtime(), found.mtime_nsec()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Identity::Gone,
            Err(_) => Identity::Unknown,
        }
    }

    /// Opens a file anew and reads a part of it, as far as it goes.
    fn read_again(&self, name: &str, part: Range<u64>) -> Reread {
        let read = match open_regular(&self.path(name)) {
            Ok(Some((file, size))) => read_to_nothing(&file, part.start..part.end.min(size)),
            Ok(None) | Err(BankError::Damaged { .. }) => return Reread::Gone,
            Err(BankError::Io { source, .. }) => Err(source),
            Err(other) => Err(io::Error::other(other.to_string())),
        };
        match read {
            Ok(()) => Reread::Well,
            Err(error) => Reread::Failed(error),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bank.root().join(name)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_to_nothing(file: &File, part: Range<u64>) -> io::Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    fault::reading(file, part.clone())?;
    let mut buffer = vec![0; READ_BUFFER];
    let mut offset = part.start;
    while offset < part.end {
        let wanted = usize::try_from(part.end - offset).unwrap_or(READ_BUFFER).min(READ_BUFFER);
        let room = buffer.get_mut(..wanted).unwrap_or_default();
        match file.read_at(room, offset) {
            // It has become shorter, which is not for us to judge.
            Ok(0) => return Ok(()),
            Ok(count) => offset += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::cache_info::CacheInfo;
    use crate::nix::store_path::StoreDir;

    fn quarantine() -> (tempfile::TempDir, Quarantine) {
        let directory = tempfile::tempdir().unwrap();
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        let bank = Bank::open(directory.path().join("bank"), &info).unwrap();
        std::fs::write(bank.root().join("nar/a"), "bytes").unwrap();
        (directory, Quarantine::new(Arc::new(bank), Arc::default()))
    }

    fn error() -> io::Error {
        rustix::io::Errno::IO.into()
    }

    #[test]
    fn what_can_be_read_again_at_once_was_no_damage() {
        let (_directory, quarantine) = quarantine();
        let judged = quarantine.failed("nar/a", 0..5, &error());
        assert!(matches!(judged, SourceError::Unavailable(_)), "{judged}");
        assert!(quarantine.is_empty() && quarantine.holds("nar/a").is_none());
        let judged = quarantine.failed("nar/b", 0..5, &error());
        assert!(matches!(judged, SourceError::Damaged(_)), "{judged}");
        assert!(quarantine.is_empty());
    }

    #[test]
    fn a_file_is_held_until_its_time_has_come_and_it_can_be_read() {
        let (_directory, quarantine) = quarantine();
        assert!(quarantine.take_in("nar/a") && !quarantine.take_in("nar/a"));
        let version = quarantine.version();
        assert!(matches!(quarantine.holds("nar/a"), Some(SourceError::Damaged(_))));
        assert!(quarantine.holds("nar/b").is_none());
        let now = Instant::now();
        quarantine.retry(now);
        assert_eq!((quarantine.len(), quarantine.version()), (1, version));
        quarantine.retry(now + RETRY + Duration::from_secs(1));
        assert!(quarantine.is_empty() && quarantine.version() > version);
    }

    #[test]
    fn another_file_of_the_name_is_let_go_of_when_it_is_asked_for_or_looked_at() {
        let (_directory, quarantine) = quarantine();
        let file = quarantine.path("nar/a");
        for look in [
            (|quarantine| drop(quarantine.holds("nar/a"))) as fn(&Quarantine),
            Quarantine::look_again,
        ] {
            quarantine.take_in("nar/a");
            look(&quarantine);
            assert_eq!(quarantine.len(), 1);
            std::fs::write(file.with_extension("new"), "bytes").unwrap();
            std::fs::rename(file.with_extension("new"), &file).unwrap();
            look(&quarantine);
            assert!(quarantine.is_empty());
        }
        quarantine.take_in("nar/a");
        std::fs::remove_file(&file).unwrap();
        assert!(quarantine.holds("nar/a").is_none() && quarantine.is_empty());
    }

    #[test]
    fn of_too_many_files_the_one_held_longest_goes() {
        let (_directory, quarantine) = quarantine();
        for number in 0..=MAX_HELD {
            quarantine.take_in(&number.to_string());
        }
        assert_eq!(quarantine.len(), MAX_HELD);
        assert!(!quarantine.names().contains(&"0".to_owned()));
    }

    #[test]
    fn while_nothing_can_be_read_nothing_is_tried() {
        let (_directory, quarantine) = quarantine();
        quarantine.take_in("nar/a");
        quarantine.vital.set(crate::source::vital::Standing::Away("the pool is gone".into()));
        quarantine.retry(Instant::now() + MAX_RETRY);
        assert_eq!(quarantine.len(), 1);
    }
}
