//! The only module that creates, renames or removes files under a data directory.
//!
//! What holds at every moment, and after a power cut:
//!
//! - **I1** A narinfo that can be fetched implies a NAR that can be fetched whole, and all references.
//! - **I2** A success that a pusher was told survives.
//! - **I3** A name, once published, never changes its bytes, but for a narinfo that gains signatures
//!   and for what was found damaged.
//!
//! **One file** ([`Staged`]): 1. a temporary file in `tmp/` beside its target, opened `O_EXCL`; 2.
//! written, and `fsync`; 3. `renameat2(RENAME_NOREPLACE)` to its name; file systems without that flag
//! get `linkat` and `unlink`, which refuse a taken name as well; 4. `fsync` of the directory. A crash
//! before 3 leaves a temporary file, which [`Bank::recover`](crate::bank::Bank::recover) removes. Not `O_TMPFILE`: on ZFS linking one
//! waits for a whole transaction group.
//!
//! **A NAR that came** ([`pending`]): its facts and its listing get their names in `pending/`, then the
//! NAR itself. It is pending when all are there; recovery removes what is there without the others.
//!
//! **One path**, whose narinfo came ([`commit`]): 1. the NAR goes from `pending/` to `nar/`, which
//! is synced; a crash leaves a NAR without a narinfo, which nobody sees; 2. the listing,
//! and where to find debug information; 3. the narinfo, as one file above. Only then is the path there.
//!
//! **Many paths** ([`commit`]): 1. their NARs go to `nar/`, and one `syncfs` makes all of that durable;
//! 2. a journal that holds all narinfos is written as one file above: from then on they are committed;
//! 3. as above for each, references first, without a sync of their own; 4. one `syncfs`; 5. the journal
//! goes. A crash before 2 leaves NARs that nobody sees; after it, recovery does 3 to 5 again before
//! anything is served. The NARs go first because what waits may be let go of by others: a journal
//! must never need what somebody can take away.
//!
//! **What fails half way** ([`Bank::settle`](super::Bank::settle)): a name may have been given and not
//! be durable, and a journal may be there. Whoever publishes next makes good for it before anything
//! else is looked at, so that what is found present may be acknowledged.

pub mod commit;
pub mod damaged;
pub mod partial;
pub mod pending;
pub mod private;
pub mod removal;
mod system;

#[cfg(test)]
mod crash;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Bank, BankError, DEBUG_INFO};
use crate::nix::cache_info::{self, CacheInfo};
use damaged::DAMAGED;

/// Where unfinished files are, in the directory of the finished ones.
const TEMPORARY: &str = "tmp";
/// Nobody writes so long at one file without a byte.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// NARs that wait for their narinfo, and journals.
pub(super) const PENDING: &str = "pending";
/// Uploads that come in parts.
pub(super) const UPLOADS: &str = "uploads";

/// A file that has no name yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    file: File,
    temporary: PathBuf,
    /// Whether the file belongs to nobody else, and goes with this.
    is_own: bool,
}

/// Whether a name was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Published {
    /// The file has its name now.
    New,
    /// The name was taken by an earlier file, which stays; ours is gone.
    AlreadyThere,
}

impl Staged {
    /// Opens a new temporary file in `root`'s own `tmp/`, so in the same dataset as its target.
    pub fn create(root: &Path) -> Result<Self, BankError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}.part", std::process::id());
        let temporary = root.join(TEMPORARY).join(name);
        let file = system::create(&temporary).map_err(io_error(&temporary))?;
        Ok(Self { file, temporary, is_own: true })
    }

    /// A temporary file in `root` with the first `size` bytes of `file`, which share its blocks where the
    /// file system can do that; `None` where it cannot even copy between the two.
    pub fn copy_of(root: &Path, file: &File, size: u64) -> Result<Option<Self>, BankError> {
        let staged = Self::create(root)?;
        let copied = system::copy(file, &staged.file, size).map_err(io_error(&staged.temporary))?;
        Ok(copied.then_some(staged))
    }

    /// The file, to write to it or to read what was written.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `bytes`.
    pub fn write(&self, bytes: &[u8]) -> Result<(), BankError> {
        system::write(&self.file, bytes).map_err(io_error(&self.temporary))
    }

    /// Makes the file durable under `name`, which lies in a directory of the same file system.
    pub fn publish(self, name: &Path) -> Result<Published, BankError> {
        self.sync()?;
        let published = self.rename(name)?;
        sync_directory_of(name)?;
        Ok(published)
    }

    /// As [`Self::publish`], in the place of what has the name.
    pub fn publish_over(self, name: &Path) -> Result<(), BankError> {
        self.sync()?;
        self.rename_over(name)?;
        sync_directory_of(name)
    }

    fn sync(&self) -> Result<(), BankError> {
        system::sync(&self.file, &self.temporary).map_err(io_error(&self.temporary))
    }

    /// Gives the name, durable only with the next sync of the directory.
    fn rename(&self, name: &Path) -> Result<Published, BankError> {
        match system::rename_new(&self.temporary, name) {
            Ok(()) => Ok(Published::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Published::AlreadyThere)
            }
            Err(error) => Err(io_error(name)(error)),
        }
    }

    fn rename_over(&self, name: &Path) -> Result<(), BankError> {
        system::rename_over(&self.temporary, name).map_err(io_error(name))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.is_own {
            // After a rename nothing is left under this name, and a sweep follows at every start.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn sync_directory_of(name: &Path) -> Result<(), BankError> {
    sync_directory(name.parent().unwrap_or(Path::new("/")))
}

fn sync_directory(directory: &Path) -> Result<(), BankError> {
    system::sync_directory(directory).map_err(io_error(directory))
}

/// What is written to find out whether the disks answer: always the same file, so that no name comes or
/// goes, and one with a name, because a file system need not sync what has none.
const PROBE: &str = ".probe";

impl Bank {
    /// Writes a few bytes and syncs them, to find out whether the disks answer. Blocks, and for ever where
    /// they do not.
    pub fn probe(&self) -> Result<(), BankError> {
        self.stamp()?;
        let name = self.root().join(PROBE);
        let file = File::options().write(true).create(true).truncate(false).open(&name);
        let written = file.and_then(|file| {
            std::os::unix::fs::FileExt::write_all_at(&file, b"probe\n", 0)?;
            file.sync_data()
        });
        written.map_err(io_error(&name))
    }
}

/// Makes a new bank: its directories, then the mark that it is one.
pub(super) fn create(root: &Path, info: &CacheInfo) -> Result<(), BankError> {
    make_directories(root)?;
    let staged = Staged::create(root)?;
    staged.write(info.to_text().as_bytes())?;
    staged.publish(&root.join(cache_info::NAME)).map(drop)
}

/// Makes the directories that files are published into, where they are missing.
///
/// A bank on a read-only dataset lacks those that only writing needs.
pub fn make_directories(root: &Path) -> Result<(), BankError> {
    for directory in ["nar", TEMPORARY] {
        make_directory(&root.join(directory))?;
    }
    Ok(())
}

/// Makes the directories that only a bank that is pushed to needs.
pub(super) fn make_push_directories(root: &Path) -> Result<(), BankError> {
    for directory in
        [PENDING, UPLOADS, "log", "realisations", "build-trace-v2", DEBUG_INFO, DAMAGED]
    {
        make_directory(&root.join(directory))?;
    }
    Ok(())
}

fn make_directory(directory: &Path) -> Result<(), BankError> {
    match system::make_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        other => other.map_err(io_error(directory)),
    }
}

/// Removes what an earlier process left unfinished in `root`. Only for a start: no file that this
/// process has open may be there.
pub fn sweep(root: &Path) -> Result<u64, BankError> {
    sweep_those(root, |_| true)
}

/// Removes what an earlier process left unfinished in `root` more than a day ago. Others may be writing there.
pub fn sweep_abandoned(root: &Path) -> Result<u64, BankError> {
    sweep_those(root, |path| {
        let modified = std::fs::metadata(path).and_then(|file| file.modified());
        modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > ABANDONED))
    })
}

fn sweep_those(root: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<u64, BankError> {
    let mut removed = 0;
    for path in entries(&root.join(TEMPORARY))? {
        if path.extension().is_some_and(|extension| extension == "part") && is_wanted(&path) {
            remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The names in a directory, with their directory; none where it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, BankError> {
    let mut entries = Vec::new();
    for_each_entry(directory, |entry| entries.push(entry))?;
    Ok(entries)
}

/// Tells of all that lies in a directory, which may be a million files; of nothing where there is no such directory.
fn for_each_entry(directory: &Path, mut tell: impl FnMut(PathBuf)) -> Result<(), BankError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(directory)(error)),
    };
    for entry in entries {
        tell(entry.map_err(io_error(directory))?.path());
    }
    Ok(())
}

/// Removes a file; one that is gone already counts as removed.
pub fn remove(path: &Path) -> Result<(), BankError> {
    system::remove(path).map_err(io_error(path))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BankError + use<> {
    let path = path.to_path_buf();
    move |source| BankError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        make_directories(directory.path()).unwrap();
        directory
    }

    #[test]
    fn a_name_once_published_keeps_its_bytes() {
        let root = root();
        let name = root.path().join("nar/x");
        for (bytes, expected) in [("first", Published::New), ("second", Published::AlreadyThere)] {
            let staged = Staged::create(root.path()).unwrap();
            staged.write(bytes.as_bytes()).unwrap();
            assert_eq!(staged.publish(&name).unwrap(), expected);
        }
        assert_eq!(std::fs::read_to_string(&name).unwrap(), "first");
        assert_eq!(std::fs::read_dir(root.path().join(TEMPORARY)).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_has_the_bytes_and_one_of_a_file_that_is_too_short_is_none() {
        let root = root();
        let name = root.path().join("nar/x");
        std::fs::write(&name, b"0123456789").unwrap();
        let file = File::open(&name).unwrap();
        let copy = Staged::copy_of(root.path(), &file, 10).unwrap().unwrap();
        copy.publish(&root.path().join("nar/y")).unwrap();
        assert_eq!(std::fs::read(root.path().join("nar/y")).unwrap(), b"0123456789");
        assert!(Staged::copy_of(root.path(), &file, 11).unwrap().is_none());
        assert_eq!(std::fs::read_dir(root.path().join(TEMPORARY)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_dropped_before_it_is_published_leaves_nothing() {
        let root = root();
        drop(Staged::create(root.path()).unwrap());
        assert_eq!(std::fs::read_dir(root.path().join(TEMPORARY)).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_removes_what_a_killed_process_left() {
        let root = root();
        std::fs::write(root.path().join("tmp/9-9.part"), "half").unwrap();
        assert_eq!(sweep(root.path()).unwrap(), 1);
        assert_eq!(sweep(root.path()).unwrap(), 0);
    }
}
