//! Copying a directory so that the copy holds what the original holds, and nothing else.
//!
//! It can be killed at any point and done again: a file that is there with size and time of its
//! original is not read again, and its time is set only when all of it is there. What is copied was
//! written by nobody but us: files, directories, symbolic links; their modes and times are kept.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::LayoutError;
use crate::zfs::account::Account;

/// How much is read at once.
const CHUNK: usize = 1 << 20;
/// How deep directories may nest: a cache has three levels.
const MAX_DEPTH: usize = 32;

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files and directories that are as they should be.
    pub entries: u64,
    /// Bytes that were copied now.
    pub bytes: u64,
}

/// Has `to` hold what `from` holds, and says how it goes.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    account: Option<&Account>,
    progress: &mut dyn FnMut(Copied),
) -> Result<Copied, LayoutError> {
    let mut copying = Copying { account, copied: Copied::default(), progress };
    copying.directory(from, to, 0)?;
    let target = File::open(to).map_err(LayoutError::io(to))?;
    rustix::fs::syncfs(&target).map_err(|errno| LayoutError::io(to)(errno.into()))?;
    compare(from, to)?;
    Ok(copying.copied)
}

struct Copying<'a> {
    account: Option<&'a Account>,
    copied: Copied,
    progress: &'a mut dyn FnMut(Copied),
}

impl Copying<'_> {
    fn directory(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), LayoutError> {
        if depth > MAX_DEPTH {
            let (path, kind) = (from.into(), "directory that lies too deep");
            return Err(LayoutError::OddFile { path, kind });
        }
        match fs::create_dir(to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(LayoutError::io(to))?,
        }
        for name in names(from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            // What has gone meanwhile, the comparison finds.
            let Some(original) = metadata(&from)? else { continue };
            let there = metadata(&to)?;
            if there.as_ref().is_some_and(|there| there.file_type() != original.file_type()) {
                remove(&to)?;
            }
            if original.is_dir() {
                self.directory(&from, &to, depth + 1)?;
                continue;
            }
            if original.is_symlink() {
                self.link(&from, &to)?;
            } else if !original.is_file() {
                return Err(LayoutError::OddFile { path: from, kind: "socket, pipe or device" });
            } else if !there.is_some_and(|there| is_copy(&original, &there)) {
                self.file(&from, &to, &original)?;
            }
            self.give(&to, &original)?;
            self.count();
        }
        for name in names(to)? {
            if metadata(&from.join(&name))?.is_none() {
                remove(&to.join(name))?;
            }
        }
        let original = fs::symlink_metadata(from).map_err(LayoutError::io(from))?;
        self.give(to, &original)?;
        let permissions = Permissions::from_mode(original.mode() & 0o7777);
        fs::set_permissions(to, permissions).map_err(LayoutError::io(to))?;
        self.count();
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path, original: &Metadata) -> Result<(), LayoutError> {
        let mut source = File::open(from).map_err(LayoutError::io(from))?;
        let mut target = File::create(to).map_err(LayoutError::io(to))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = source.read(&mut chunk).map_err(LayoutError::io(from))?;
            if read == 0 {
                break;
            }
            target.write_all(&chunk[..read]).map_err(LayoutError::io(to))?;
            self.copied.bytes += u64::try_from(read).unwrap_or(0);
            (self.progress)(self.copied);
        }
        let mode = Permissions::from_mode(original.mode() & 0o7777);
        target.set_permissions(mode).map_err(LayoutError::io(to))?;
        // Last: it says that the copy is whole.
        let modified = original.modified().map_err(LayoutError::io(from))?;
        let times = FileTimes::new().set_modified(modified);
        target.set_times(times).map_err(LayoutError::io(to))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<(), LayoutError> {
        let target = fs::read_link(from).map_err(LayoutError::io(from))?;
        if fs::read_link(to).is_ok_and(|there| there == target) {
            return Ok(());
        }
        remove(to)?;
        symlink(target, to).map_err(LayoutError::io(to))
    }

    fn give(&self, to: &Path, original: &Metadata) -> Result<(), LayoutError> {
        let (uid, gid) = match self.account {
            Some(account) => (account.uid, account.gid),
            None => (original.uid(), original.gid()),
        };
        lchown(to, Some(uid), Some(gid)).map_err(LayoutError::io(to))
    }

    fn count(&mut self) {
        self.copied.entries += 1;
        (self.progress)(self.copied);
    }
}

/// Compares names, kinds and sizes, both ways.
fn compare(from: &Path, to: &Path) -> Result<(), LayoutError> {
    let differs = |file: PathBuf| LayoutError::Differs { file, to: to.into() };
    let (ours, theirs) = (names(from)?, names(to)?);
    if let Some(name) = ours.iter().find(|name| !theirs.contains(name)) {
        return Err(differs(from.join(name)));
    }
    if let Some(name) = theirs.iter().find(|name| !ours.contains(name)) {
        return Err(differs(from.join(name)));
    }
    for name in ours {
        let (file, copy) = (from.join(&name), to.join(&name));
        let (Some(original), Some(copied)) = (metadata(&file)?, metadata(&copy)?) else {
            return Err(differs(file));
        };
        if original.file_type() != copied.file_type() {
            return Err(differs(file));
        }
        if original.is_dir() {
            compare(&file, &copy)?;
        } else if original.is_file() && !is_copy(&original, &copied) {
            return Err(differs(file));
        }
    }
    Ok(())
}

/// Whether a file is a whole copy of another, by what was set last.
fn is_copy(original: &Metadata, copy: &Metadata) -> bool {
    let when = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
    original.len() == copy.len() && when(original) == when(copy)
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Result<Vec<OsString>, LayoutError> {
    let read = || -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let mut names = read().map_err(LayoutError::io(directory))?;
    names.sort_unstable();
    Ok(names)
}

fn metadata(path: &Path) -> Result<Option<Metadata>, LayoutError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LayoutError::Io { path: path.into(), source }),
    }
}

/// Removes what is in a copy and not in its original.
fn remove(path: &Path) -> Result<(), LayoutError> {
    let removed = match metadata(path)? {
        None => Ok(()),
        Some(there) if there.is_dir() => fs::remove_dir_all(path),
        Some(_) => fs::remove_file(path),
    };
    removed.map_err(LayoutError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        fs::create_dir_all(from.join("nar/deep")).unwrap();
        fs::write(from.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
        fs::write(from.join("nar/x.nar.zst"), vec![7; 3 << 20]).unwrap();
        fs::write(from.join("nar/deep/empty"), "").unwrap();
        fs::set_permissions(from.join("nix-cache-info"), Permissions::from_mode(0o640)).unwrap();
        symlink("nar/x.nar.zst", from.join("link")).unwrap();
        directory
    }

    fn copied(root: &Path) -> Copied {
        copy(&root.join("from"), &root.join("to"), None, &mut |_| ()).unwrap()
    }

    #[test]
    fn a_copy_holds_all_that_there_is_with_modes_and_times() {
        let directory = tree();
        let mut seen = Copied::default();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let copied = copy(&from, &to, None, &mut |copied| seen = copied).unwrap();
        assert_eq!((copied.entries, copied.bytes), (7, (3 << 20) + 21));
        assert_eq!(seen, copied);
        assert_eq!(fs::read(to.join("nar/x.nar.zst")).unwrap(), vec![7; 3 << 20]);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nar/x.nar.zst"));
        let info = fs::metadata(to.join("nix-cache-info")).unwrap();
        assert_eq!(info.mode() & 0o7777, 0o640);
        assert!(is_copy(&fs::metadata(from.join("nix-cache-info")).unwrap(), &info));
    }

    #[test]
    fn done_again_it_reads_nothing_and_after_a_kill_it_does_the_rest() {
        let directory = tree();
        copied(directory.path());
        assert_eq!(copied(directory.path()).bytes, 0);
        // What a kill leaves: a file cut short, and one that is whole but for its time.
        let to = directory.path().join("to");
        let file = File::options().write(true).open(to.join("nar/x.nar.zst")).unwrap();
        file.set_len(1000).unwrap();
        let file = File::options().write(true).open(to.join("nix-cache-info")).unwrap();
        file.set_times(FileTimes::new().set_modified(std::time::SystemTime::now())).unwrap();
        assert_eq!(copied(directory.path()).bytes, (3 << 20) + 21);
    }

    #[test]
    fn what_is_not_in_the_original_any_more_goes_whatever_it_is() {
        let directory = tree();
        copied(directory.path());
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::remove_dir_all(from.join("nar/deep")).unwrap();
        fs::remove_file(from.join("link")).unwrap();
        fs::create_dir(from.join("link")).unwrap();
        fs::write(to.join("stray"), "").unwrap();
        copied(directory.path());
        assert_eq!(names(&to).unwrap(), ["link", "nar", "nix-cache-info"]);
        assert!(to.join("link").is_dir() && !to.join("nar/deep").exists());
    }

    #[test]
    fn a_difference_is_named() {
        let directory = tree();
        copied(directory.path());
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(from.join("nar/late"), "x").unwrap();
        let error = compare(&from, &to).unwrap_err().to_string();
        assert!(error.contains("from/nar/late differs"), "{error}");
        fs::write(to.join("nar/late"), "xy").unwrap();
        assert!(compare(&from, &to).is_err());
    }

    #[test]
    fn what_no_cache_has_is_refused() {
        let directory = tree();
        let socket = directory.path().join("from/socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let error = copy(&from, &to, None, &mut |_| ()).unwrap_err();
        assert!(matches!(error, LayoutError::OddFile { .. }), "{error}");
    }
}
