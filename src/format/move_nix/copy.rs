//! Makes one tree equal to another, or says where it is not.
//!
//! The source may be in use: what vanishes is passed over, and what changes is found by the next pass.
//! A file is written under a name of its own and gets its place when it is whole, with owner, mode,
//! time and attributes; so a copy that was killed goes on where it was, and what has its name, size
//! and time is not copied again. Directories are opened from their parents and symlinks never
//! followed: whoever may write to a part of `/nix` cannot lead a copier that runs as root elsewhere.
//!
//! All files of a store have the same time, so that there size and time do not tell two contents
//! apart. [`verify`](super::verify) hashes them; outside the store bytes are compared here.

mod node;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::Watcher;
use crate::nix::store_path::StorePath;
use node::{Kind, Node, names};

/// What a file is called until it is whole, at the top of the copy.
const PARTIAL: &str = ".snowbank-copy";
/// How deep directories may lie: each level has two of them open. Nix itself refuses trees deeper than 64.
const MAX_DEPTH: usize = 256;

/// What is done about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is made equal.
    Copy,
    /// It is counted.
    Compare,
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files, directories and symlinks that were looked at.
    pub files: u64,
    /// Bytes that were copied or hashed.
    pub bytes: u64,
}

/// What a pass has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// How many files, directories and symlinks were different.
    pub changed: u64,
    /// One of them.
    pub first: Option<String>,
    /// The store paths that they are in.
    store: BTreeSet<StorePath>,
}

/// Why a tree was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The system refused.
    #[error("cannot {what} {path:?}: {errno}{}", hint(*.errno))]
    Io {
        /// What was being done.
        what: &'static str,
        /// With what, from the top of the tree.
        path: String,
        /// The answer.
        errno: Errno,
    },
    /// A directory is on another file system.
    #[error("{0:?} is on another file system: unmount it first")]
    OtherFileSystem(String),
    /// Directories are nested too deeply.
    #[error("{0:?} has directories more than {MAX_DEPTH} deep")]
    TooDeep(String),
}

const fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => " (the pool is too small for /nix)",
        _ => "",
    }
}

impl Passed {
    /// The store paths that something was different in.
    pub fn store_paths(&self) -> BTreeSet<StorePath> {
        self.store.clone()
    }
}

/// Goes through `from` and `to`, and does with each difference what `way` says.
pub fn pass(
    from: &Path,
    to: &Path,
    way: Way,
    watcher: &mut dyn Watcher,
) -> Result<Passed, CopyError> {
    let open = |path: &Path| {
        rustix::fs::open(path, OPEN_DIRECTORY, Mode::empty()).map_err(|errno| CopyError::Io {
            what: "open",
            path: path.display().to_string(),
            errno,
        })
    };
    let (source, target) = (open(from)?, open(to)?);
    let top = node::stat_of(&source).map_err(|errno| error("look at", b"/", errno))?;
    let mut copier = Copier {
        way,
        device: top.st_dev,
        top: &target,
        links: HashMap::new(),
        path: Vec::new(),
        progress: Progress::default(),
        passed: Passed::default(),
        watcher,
    };
    if way == Way::Copy {
        copier.remove(&target, PARTIAL.as_bytes())?;
    }
    copier.directory(&source, &target, 0)?;
    copier.finish_directory(&source, &target, b".", &top)?;
    let progress = copier.progress;
    copier.watcher.progress(&progress);
    Ok(copier.passed)
}

/// Has everything below `path` written to its disk.
pub fn sync(path: &Path) -> Result<(), CopyError> {
    let shown = path.display().to_string();
    let directory =
        File::open(path).map_err(|source| error("open", shown.as_bytes(), errno_of(&source)))?;
    rustix::fs::syncfs(&directory).map_err(|errno| error("sync", shown.as_bytes(), errno))
}

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn error(what: &'static str, path: &[u8], errno: Errno) -> CopyError {
    let path = String::from_utf8_lossy(path).chars().take(300).collect();
    CopyError::Io { what, path, errno }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

struct Copier<'a> {
    way: Way,
    /// The file system of the source.
    device: u64,
    /// The top of the copy.
    top: &'a OwnedFd,
    /// Of each file of the source that has several names: what it is in the copy, and its first name
    /// there. An optimised store has some millions of them, about 150 bytes each.
    links: HashMap<u64, (u64, Box<[u8]>)>,
    /// Where we are, from the top.
    path: Vec<u8>,
    progress: Progress,
    passed: Passed,
    watcher: &'a mut dyn Watcher,
}

impl Copier<'_> {
    /// What is in a directory; its own metadata come afterwards, since its content changes them.
    fn directory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > MAX_DEPTH {
            return Err(CopyError::TooDeep(String::from_utf8_lossy(&self.path).into_owned()));
        }
        let list = |directory: &OwnedFd| {
            names(directory).map_err(|errno| error("list", &self.path, errno))
        };
        let (here, there) = (list(source)?, list(target)?);
        for name in there.difference(&here) {
            self.superfluous(target, name)?;
        }
        for name in &here {
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.entry(source, target, name, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &[u8],
        depth: usize,
    ) -> Result<(), CopyError> {
        self.progress.files += 1;
        let progress = self.progress;
        self.watcher.progress(&progress);
        let Some(here) = self.look(source, name)? else { return Ok(()) };
        if here.st_dev != self.device {
            let path = String::from_utf8_lossy(&self.path).into_owned();
            return Err(CopyError::OtherFileSystem(path));
        }
        let there = self.look(target, name)?;
        match Kind::of(&here) {
            Kind::Directory => self.subdirectory(source, target, name, &here, there, depth),
            Kind::File | Kind::Symlink => {
                let node = Node { directory: source, name, stat: &here };
                self.node(&node, target, there)
            }
            // Whoever listens or waits there makes it anew.
            Kind::Other => Ok(()),
        }
    }

    /// `None` where there is nothing, any more or yet.
    fn look(&self, directory: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, CopyError> {
        match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(error("look at", &self.path, errno)),
        }
    }

    fn subdirectory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &[u8],
        here: &Stat,
        there: Option<Stat>,
        depth: usize,
    ) -> Result<(), CopyError> {
        // Between being listed and being opened it may have become something else.
        let Some(inner) = self.open(source, name)? else { return Ok(()) };
        if there.as_ref().map(Kind::of) != Some(Kind::Directory) {
            self.differs();
            if self.way == Way::Compare {
                return Ok(());
            }
            if there.is_some() {
                self.remove(target, name)?;
            }
            mkdirat(target, name, Mode::RWXU)
                .map_err(|errno| error("make the directory", &self.path, errno))?;
        }
        let Some(copy) = self.open(target, name)? else {
            return Err(error("open", &self.path, Errno::NOENT));
        };
        self.directory(&inner, &copy, depth + 1)?;
        self.finish_directory(source, target, name, here)
    }

    fn open(&self, directory: &OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>, CopyError> {
        match openat(directory, name, OPEN_DIRECTORY, Mode::empty()) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(error("open", &self.path, errno)),
        }
    }

    /// Owner, mode, time and attributes of a directory.
    fn finish_directory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &[u8],
        here: &Stat,
    ) -> Result<(), CopyError> {
        let node = Node { directory: source, name, stat: here };
        let Some(there) = self.look(target, name)? else { return Ok(()) };
        let same = node::same_metadata(&node, target, name, &there)
            .map_err(|errno| error("read the attributes of", &self.path, errno))?;
        if !same {
            self.differs();
            if self.way == Way::Copy {
                let opened = openat(target, name, OPEN_DIRECTORY, Mode::empty())
                    .map_err(|errno| error("open", &self.path, errno))?;
                node::give_directory(&node, &opened)
                    .map_err(|errno| error("give owner and mode to", &self.path, errno))?;
            }
        }
        Ok(())
    }

    /// A file or a symlink.
    fn node(
        &mut self,
        node: &Node<'_>,
        target: &OwnedFd,
        there: Option<Stat>,
    ) -> Result<(), CopyError> {
        let several = node.stat.st_nlink > 1;
        let first = self.links.get(&node.stat.st_ino).filter(|_| several).cloned();
        if let Some((inode, first)) = first {
            if there.as_ref().is_none_or(|there| there.st_ino != inode) {
                self.differs();
                if self.way == Way::Copy {
                    let linked = node::link(self.top, &first, PARTIAL, target, node.name, there);
                    linked.map_err(|errno| error("link", &self.path, errno))?;
                }
            }
            return Ok(());
        }
        let in_store = self.path.starts_with(b"store/");
        let same = match &there {
            None => false,
            Some(there) => {
                let same = node::is_same(node, target, there, !in_store);
                same.map_err(|errno| error("compare", &self.path, errno))?
            }
        };
        let mut inode = there.as_ref().map(|there| there.st_ino);
        if !same {
            self.differs();
            if self.way == Way::Copy {
                if there.as_ref().map(Kind::of) == Some(Kind::Directory) {
                    self.remove(target, node.name)?;
                }
                let copied = node::copy(node, self.top, PARTIAL, target)
                    .map_err(|(what, errno)| error(what, &self.path, errno))?;
                // It vanished.
                let Some((made, bytes)) = copied else { return Ok(()) };
                inode = Some(made);
                self.progress.bytes += bytes;
            }
        }
        if let Some(inode) = inode.filter(|_| several) {
            self.links.insert(node.stat.st_ino, (inode, self.path.as_slice().into()));
        }
        Ok(())
    }

    /// What the source does not have.
    fn superfluous(&mut self, target: &OwnedFd, name: &[u8]) -> Result<(), CopyError> {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.differs();
        let removed = match self.way {
            Way::Copy => self.remove(target, name),
            Way::Compare => Ok(()),
        };
        self.path.truncate(length);
        removed
    }

    /// Removes whatever is there, with all that is in it.
    fn remove(&self, target: &OwnedFd, name: &[u8]) -> Result<(), CopyError> {
        let failed = |errno| error("remove", &self.path, errno);
        let Some(there) = self.look(target, name)? else { return Ok(()) };
        if Kind::of(&there) != Kind::Directory {
            return unlinkat(target, name, AtFlags::empty()).map_err(failed);
        }
        let inner = openat(target, name, OPEN_DIRECTORY, Mode::empty()).map_err(failed)?;
        for inside in names(&inner).map_err(failed)? {
            self.remove(&inner, &inside)?;
        }
        unlinkat(target, name, AtFlags::REMOVEDIR).map_err(failed)
    }

    fn differs(&mut self) {
        self.passed.changed += 1;
        let path = String::from_utf8_lossy(&self.path);
        if self.passed.first.is_none() {
            self.passed.first = Some(path.chars().take(300).collect());
        }
        let inside = path.strip_prefix("store/").and_then(|inside| inside.split('/').next());
        if let Some(path) = inside.and_then(|name| StorePath::parse(name).ok()) {
            self.passed.store.insert(path);
        }
    }
}

impl Kind {
    fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory,
            FileType::RegularFile => Self::File,
            FileType::Symlink => Self::Symlink,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
