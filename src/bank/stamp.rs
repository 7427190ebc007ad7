//! Whether a bank is there, and whether its names have changed since it was last looked at.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::BankError;
use crate::nix::cache_info;

/// File systems stamp times by the kernel's tick, up to 10 ms long: a name made in the same tick as
/// a look leaves the stamp as it was. A stamp younger than this is therefore never trusted.
const SETTLE: Duration = Duration::from_millis(40);

/// Which directory it is and when its names last changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    narinfos: FileStamp,
    nars: Option<FileStamp>,
    /// Whether the last change is old enough for the stamp to tell the next one.
    settled: bool,
}

/// What a change of a directory or a file changes, or its replacement by another: a mount, an unmount, a
/// rollback, a snapshot that is received; a file that is renamed to its name, or a link that leads elsewhere.
///
/// The times of a received directory are the sender's, whose next name may have come within the tick in
/// which the snapshot was taken. ZFS counts the names of a directory in its size, and that tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Looks at the bank at `root`: three `stat` calls.
    pub(super) fn of(root: &Path) -> Result<Self, BankError> {
        let marker = root.join(cache_info::NAME);
        match std::fs::metadata(&marker) {
            Ok(_) => {}
            Err(error) if is_absence(&error) => return Err(BankError::Away(root.into())),
            Err(source) => return Err(BankError::Io { path: marker, source }),
        }
        let narinfos = match FileStamp::of(root) {
            Ok(stamp) => stamp,
            Err(source) => return Err(BankError::Io { path: root.into(), source }),
        };
        let nars = FileStamp::of(&root.join("nar")).ok();
        let latest = nars.map_or(narinfos.changed, |nars| nars.changed.max(narinfos.changed));
        Ok(Self { narinfos, nars, settled: is_settled(latest) })
    }

    /// Whether it is of the same directory, whatever has changed in it.
    pub const fn is_of_the_directory_of(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.narinfos, &other.narinfos);
        ours.device == theirs.device && ours.inode == theirs.inode
    }

    /// The device of the file system that the bank lies on.
    pub const fn device(&self) -> u64 {
        self.narinfos.device
    }

    /// Whether nothing has changed since `earlier`, for certain.
    pub fn proves_unchanged_since(&self, earlier: &Self) -> bool {
        earlier.settled && self == earlier
    }
}

impl FileStamp {
    /// Of what has this name now; links are followed.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn is_settled((seconds, nanoseconds): (i64, i64)) -> bool {
    let changed = u64::try_from(seconds)
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
        + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    // A stamp in the future is never settled: the next change could bring it back.
    SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLE)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_made_right_after_a_look_is_never_missed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(cache_info::NAME), "").unwrap();
        for name in 0..200 {
            let before = Stamp::of(directory.path()).unwrap();
            std::fs::write(directory.path().join(name.to_string()), "").unwrap();
            let after = Stamp::of(directory.path()).unwrap();
            assert!(!after.proves_unchanged_since(&before), "{name}");
        }
    }

    #[test]
    fn a_directory_in_the_place_of_another_is_another_however_old_both_are() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["a", "b"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join(cache_info::NAME), "").unwrap();
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let settled = |name: &str| loop {
            let stamp = Stamp::of(&at(name)).unwrap();
            if stamp.settled {
                break stamp;
            }
            assert!(std::time::Instant::now() < deadline, "the stamp never settled");
            std::thread::yield_now();
        };
        let (before, other) = (settled("a"), settled("b"));
        assert!(!other.is_of_the_directory_of(&before) && !other.proves_unchanged_since(&before));
        std::fs::rename(at("a"), at("gone")).unwrap();
        std::fs::rename(at("b"), at("a")).unwrap();
        assert!(!Stamp::of(&at("a")).unwrap().proves_unchanged_since(&before));
    }

    #[test]
    fn a_directory_at_rest_is_proved_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(cache_info::NAME), "").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let first = Stamp::of(directory.path()).unwrap();
            if Stamp::of(directory.path()).unwrap().proves_unchanged_since(&first) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "the stamp never settled");
            std::thread::yield_now();
        }
    }
}
