//! Goes through a tree in the order of its NAR, by directory handles, reading metadata only.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat_raw, statat};

use super::directory::Names;
use super::error::quote;
use super::{StoreTree, TreeError};
use crate::nix::nar::Event;

/// A walk through one tree. Each [`step`](Walker::step) is one node or the end of a directory.
pub(super) struct Walker {
    tree: StoreTree,
    /// What paths of files are relative to: the root if it is a directory, else the store.
    anchor: Arc<OwnedFd>,
    started: bool,
    /// Open directories, outermost first.
    levels: Vec<Level>,
    /// The path of the current node, relative to `anchor`.
    path: Vec<u8>,
    nodes: u64,
    /// Room for reading directories.
    entries_buffer: Vec<u8>,
    /// Room for reading symlinks.
    target: Vec<u8>,
}

/// An open directory.
struct Level {
    directory: Arc<OwnedFd>,
    names: Names,
    next: usize,
    /// The length of this directory's own path.
    path_length: usize,
}

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// S_IXUSR, the one bit of a mode that a NAR keeps.
pub(super) const OWNER_MAY_EXECUTE: u32 = 0o100;

impl Walker {
    pub(super) fn new(tree: StoreTree) -> Self {
        Self {
            anchor: tree.store.0.clone(),
            path: tree.name.as_bytes().to_vec(),
            tree,
            started: false,
            levels: Vec::new(),
            nodes: 0,
            entries_buffer: Vec::new(),
            target: Vec::new(),
        }
    }

    /// What the paths given to the sink are relative to. It changes only in the first step.
    pub(super) const fn anchor(&self) -> &Arc<OwnedFd> {
        &self.anchor
    }

    /// Takes one step, and says whether there are more. The sink gets each event with the path of
    /// its node; `contents_offset` is always 0, and no `Contents` come between `File` and
    /// `FileEnd`.
    pub(super) fn step(
        &mut self,
        sink: &mut impl FnMut(Event<'_>, &[u8]),
    ) -> Result<bool, TreeError> {
        let Some(level) = self.levels.last_mut() else {
            if self.started {
                return Ok(false);
            }
            self.started = true;
            let store = self.tree.store.0.clone();
            let length = self.path.len();
            self.node(&store, length, FileType::Unknown, sink).map_err(|error| match error {
                TreeError::Vanished { path } => TreeError::NotFound { path },
                other => other,
            })?;
            return Ok(!self.levels.is_empty());
        };
        self.path.truncate(level.path_length);
        let Some((name, kind)) = level.names.get(level.next) else {
            self.levels.pop();
            sink(Event::DirectoryEnd, &self.path);
            return Ok(!self.levels.is_empty());
        };
        level.next += 1;
        sink(Event::Entry(name), &self.path);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let (directory, length) = (level.directory.clone(), name.len());
        self.node(&directory, length, kind, sink)?;
        Ok(true)
    }

    /// Looks at the node whose name is the last `name_length` bytes of the path.
    fn node(
        &mut self,
        directory: &OwnedFd,
        name_length: usize,
        kind: FileType,
        sink: &mut impl FnMut(Event<'_>, &[u8]),
    ) -> Result<(), TreeError> {
        let limits = self.tree.limits;
        self.nodes += 1;
        if self.nodes > limits.max_entries {
            return Err(self.beyond("too many files"));
        }
        if self.levels.len() >= limits.max_depth {
            return Err(self.beyond("directories nested too deeply"));
        }
        if name_length > limits.max_name {
            return Err(self.beyond("too long a name"));
        }
        let name = &self.path[self.path.len() - name_length..];
        let mut stat = None;
        let kind = match kind {
            FileType::Directory | FileType::Symlink => kind,
            _ => {
                let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| TreeError::at(&self.path, "stat", errno))?;
                let kind = FileType::from_raw_mode(found.st_mode);
                stat = Some(found);
                kind
            }
        };
        match (kind, stat) {
            (FileType::Directory, _) => {
                let opened = openat(directory, name, OPEN_DIRECTORY, Mode::empty())
                    .map_err(|errno| TreeError::at(&self.path, "open", errno))?;
                self.open_level(Arc::new(opened))?;
                sink(Event::Directory, &self.path);
            }
            (FileType::RegularFile, Some(stat)) => {
                let executable = stat.st_mode & OWNER_MAY_EXECUTE != 0;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                sink(Event::File { executable, size, contents_offset: 0 }, &self.path);
                sink(Event::FileEnd, &self.path);
            }
            (FileType::Symlink, _) => {
                let mut target = std::mem::take(&mut self.target);
                target.resize(limits.max_target + 1, 0);
                let length = readlinkat_raw(directory, name, &mut target[..])
                    .map_err(|errno| TreeError::at(&self.path, "read the symlink", errno))?;
                if length > limits.max_target {
                    return Err(self.beyond("too long a symlink target"));
                }
                sink(Event::Symlink { target: &target[..length] }, &self.path);
                self.target = target;
            }
            _ => return Err(TreeError::SpecialFile { path: quote(&self.path) }),
        }
        Ok(())
    }

    /// Reads all names of a directory and sorts them.
    fn open_level(&mut self, directory: Arc<OwnedFd>) -> Result<(), TreeError> {
        if self.levels.is_empty() {
            // From here on paths are relative to the root, so that replacing the whole store path
            // by another does not mix the two.
            self.anchor = directory.clone();
            self.path.clear();
        }
        let most = self.tree.limits.max_entries.saturating_sub(self.nodes);
        let names = Names::read(&directory, most, &mut self.entries_buffer)
            .map_err(|errno| TreeError::at(&self.path, "list", errno))?
            .ok_or_else(|| self.beyond("too many files"))?;
        let path_length = self.path.len();
        self.levels.push(Level { directory, names, next: 0, path_length });
        Ok(())
    }

    pub(super) fn beyond(&self, what: &'static str) -> TreeError {
        TreeError::BeyondLimits { path: quote(&self.path), what }
    }
}
