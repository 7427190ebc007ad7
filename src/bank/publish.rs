//! The only module that creates, renames or removes files under a data directory.
//!
//! A file comes to be in four steps, so that a crash between any two leaves either no name or the
//! whole file under it:
//!
//! 1. a temporary file in `tmp/` beside its target, opened `O_EXCL`, mode 0644 less the umask;
//!    a crash leaves it there, and [`sweep`] removes it at the next start;
//! 2. `fsync` of the file;
//! 3. `renameat2(RENAME_NOREPLACE)` to its name: a name, once published, never changes its bytes.
//!    Where the name is taken ours is dropped. File systems without that flag get `linkat` and
//!    `unlink`, which refuses a taken name as well;
//! 4. `fsync` of the directory. Before it the name may vanish in a power cut, but never be short.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::BankError;
use crate::nix::cache_info::{self, CacheInfo};

/// Where unfinished files are, in the directory of the finished ones.
const TEMPORARY: &str = "tmp";

/// A file that has no name yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    file: File,
    temporary: PathBuf,
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
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(io_error(&temporary))?;
        Ok(Self { file, temporary })
    }

    /// The file, to write to it or to read what was written.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Makes the file durable under `name`, which lies in a directory of the same file system.
    pub fn publish(self, name: &Path) -> Result<Published, BankError> {
        self.file.sync_all().map_err(io_error(&self.temporary))?;
        let published = match rename_new(&self.temporary, name) {
            Ok(()) => Published::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Published::AlreadyThere,
            Err(error) => return Err(io_error(name)(error)),
        };
        let directory = name.parent().unwrap_or(Path::new("/"));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(io_error(directory))?;
        Ok(published)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name, and a sweep follows at every start.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a new bank: its directories, then the mark that it is one.
pub(super) fn create(root: &Path, info: &CacheInfo) -> Result<(), BankError> {
    make_directories(root)?;
    let staged = Staged::create(root)?;
    staged.file().write_all(info.to_text().as_bytes()).map_err(io_error(&staged.temporary))?;
    staged.publish(&root.join(cache_info::NAME)).map(drop)
}

/// Makes the directories that files are published into, where they are missing.
///
/// A bank on a read-only dataset lacks `tmp/`, which only writing needs.
pub fn make_directories(root: &Path) -> Result<(), BankError> {
    for directory in [root.join("nar"), root.join(TEMPORARY)] {
        match std::fs::create_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            other => other.map_err(io_error(&directory))?,
        }
    }
    Ok(())
}

/// Removes what an earlier process left unfinished in `root`. Only for a start: no file that this
/// process has open may be there.
pub fn sweep(root: &Path) -> Result<u64, BankError> {
    let temporary = root.join(TEMPORARY);
    let entries = match std::fs::read_dir(&temporary) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(io_error(&temporary)(error)),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry.map_err(io_error(&temporary))?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes a file; one that is gone already counts as removed.
pub fn remove(path: &Path) -> Result<(), BankError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
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
            staged.file().write_all(bytes.as_bytes()).unwrap();
            assert_eq!(staged.publish(&name).unwrap(), expected);
        }
        assert_eq!(std::fs::read_to_string(&name).unwrap(), "first");
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
