//! The calls that change a directory, one function each, so that a test can strike at each
//! ([`crate::fault`]) and record all of them in their order.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use crate::fault;

/// Makes a file that was not there, to be written and read. Mode 0644 less the umask.
pub(super) fn create(path: &Path) -> io::Result<File> {
    fault::point("publish.create")?;
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    trace::note(|| Call::Create(path.into()));
    Ok(file)
}

/// Makes a directory and those that it lies in, where they are missing.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fault::point("publish.mkdir")?;
    std::fs::create_dir_all(path)
}

/// Opens a file that is there, to write to it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Writes all of `bytes`.
pub(super) fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    fault::point("publish.write")?;
    file.write_all(bytes)
}

/// Makes the bytes of a file durable. After an error it is not tried again on this descriptor: the
/// kernel has forgotten what it could not write, and would call it well.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    fault::point("publish.fsync")?;
    file.sync_all()?;
    trace::note(|| Call::Sync(path.into()));
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    fault::point("publish.fsync_directory")?;
    File::open(path)?.sync_all()?;
    trace::note(|| Call::SyncDirectory(path.into()));
    Ok(())
}

/// Makes all that was written to the file system of `path` durable, in one go.
pub(super) fn sync_file_system(path: &Path) -> io::Result<()> {
    fault::point("publish.syncfs")?;
    rustix::fs::syncfs(File::open(path)?)?;
    trace::note(|| Call::SyncAll);
    Ok(())
}

/// Gives a file another name, which nothing may have yet.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    fault::point("publish.rename")?;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    trace::note(|| Call::Rename(from.into(), to.into()));
    Ok(())
}

/// Gives a file another name, in the place of what has it.
pub(super) fn rename_over(from: &Path, to: &Path) -> io::Result<()> {
    fault::point("publish.rename")?;
    std::fs::rename(from, to)?;
    trace::note(|| Call::Rename(from.into(), to.into()));
    Ok(())
}

/// Gives a file one more name, which nothing may have yet.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    fault::point("publish.link")?;
    std::fs::hard_link(from, to)?;
    trace::note(|| Call::Link(from.into(), to.into()));
    Ok(())
}

/// Removes a file; one that is gone already counts as removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fault::point("publish.unlink")?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    trace::note(|| Call::Remove(path.into()));
    Ok(())
}

/// Copies `size` bytes within the kernel, which shares the blocks where the file system can. `false`
/// where it cannot copy between these two.
pub(super) fn copy(from: &File, to: &File, size: u64) -> io::Result<bool> {
    use rustix::io::Errno;
    let (mut from_offset, mut to_offset) = (0, 0);
    while from_offset < size {
        let left = usize::try_from(size - from_offset).unwrap_or(usize::MAX);
        let copied = rustix::fs::copy_file_range(
            from,
            Some(&mut from_offset),
            to,
            Some(&mut to_offset),
            left,
        );
        match copied {
            // The file is shorter than it was.
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// One of the calls above that changed something, for a test to replay.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests read what was recorded"))]
pub(super) enum Call {
    Create(PathBuf),
    Sync(PathBuf),
    SyncDirectory(PathBuf),
    SyncAll,
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[cfg(not(test))]
mod trace {
    pub(super) const fn note(_: impl FnOnce() -> super::Call + Copy) {}
}

#[cfg(test)]
pub(super) mod trace {
    //! What a test records of a thread, to replay parts of it as a power cut would leave them.

    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::Call;

    /// What was recorded.
    #[derive(Default)]
    struct Record {
        calls: Vec<Call>,
        /// The files by the names they have now, and the names they were made under.
        made_as: BTreeMap<PathBuf, PathBuf>,
        /// What each held, by the name it was made under, and after which call.
        contents: Vec<(usize, PathBuf, Vec<u8>)>,
    }

    thread_local! {
        static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
    }

    impl Record {
        fn take(&mut self, call: Call) {
            let number = self.calls.len();
            match &call {
                Call::Create(name) => drop(self.made_as.insert(name.clone(), name.clone())),
                Call::Rename(from, to) => {
                    if let Some(file) = self.made_as.remove(from) {
                        self.made_as.insert(to.clone(), file);
                    }
                }
                Call::Link(from, to) => {
                    if let Some(file) = self.made_as.get(from).cloned() {
                        self.made_as.insert(to.clone(), file);
                    }
                }
                Call::Remove(name) => drop(self.made_as.remove(name)),
                Call::Sync(_) | Call::SyncDirectory(_) | Call::SyncAll => {}
            }
            for (name, file) in &self.made_as {
                let bytes = std::fs::read(name).unwrap_or_default();
                self.contents.push((number, file.clone(), bytes));
            }
            self.calls.push(call);
        }
    }

    pub(super) fn note(call: impl FnOnce() -> Call) {
        RECORD.with_borrow_mut(|record| {
            if let Some(record) = record {
                record.take(call());
            }
        });
    }

    /// How many calls were recorded so far.
    pub(in crate::bank::publish) fn count() -> usize {
        RECORD.with_borrow(|record| record.as_ref().map_or(0, |record| record.calls.len()))
    }

    /// What the files held after each call, by the names they were made under.
    pub(in crate::bank::publish) fn contents() -> Vec<(usize, PathBuf, Vec<u8>)> {
        RECORD.with_borrow(|record| {
            record.as_ref().map(|record| record.contents.clone()).unwrap_or_default()
        })
    }

    /// Runs `work` and gives the calls it made.
    pub(in crate::bank::publish) fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<Call>) {
        RECORD.set(Some(Record::default()));
        let result = work();
        (result, RECORD.take().unwrap_or_default().calls)
    }
}
