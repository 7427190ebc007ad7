//! From a store path on disk to its NAR, and to single files in it.
//!
//! A NAR is a serial format, but disks and cores are parallel. So a walker (`walk`) goes ahead
//! through the metadata and plans the NAR (`plan`) as a sequence of segments of about 256 KiB, each
//! framing and many small files, or one range of a large file. Threads of a [pool](ReadPool)
//! `fill` segments side by side, and a [`NarStream`] hands them out in order. A tree of ten
//! thousand small files thus streams at the speed of one large file, cold or warm, and a range that
//! begins late in the NAR reads no contents before it.
//!
//! What is promised: a stream that ends cleanly is whole, and, if it was told what to expect, has
//! the expected hash and size; its last chunk is held back until that is known. Everything that
//! goes wrong is a named [`TreeError`]. Symlinks are never followed, and nothing is ever mapped
//! into memory (a mapped file that changes under the reader gave wrong bytes and SIGBUS elsewhere).
//! The memory of a stream is bounded, and when its consumer goes away its work stops.

mod core;
mod directory;
mod error;
mod fill;
mod inspect;
mod plan;
mod pool;
mod stream;
mod walk;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

pub use error::TreeError;
pub use inspect::{Opened, listing, nar_size, open_file};
pub use pool::ReadPool;
pub use stream::{Expected, NarStream};

use crate::nix::nar::Limits;
use crate::nix::store_path::StorePath;

/// A handle on the directory that holds store paths, such as `/nix/store`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreHandle(Arc<OwnedFd>);

/// One store path on disk. Making one touches no file; using one does.
#[derive(Clone, Debug)]
pub struct StoreTree {
    store: StoreHandle,
    name: Box<str>,
    limits: Limits,
}

impl StoreHandle {
    /// Opens the store directory; call it once, at start.
    ///
    /// The directory itself comes from the configuration and may be reached through symlinks.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = File::open(directory)?;
        if !file.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(Arc::new(file.into())))
    }
}

impl StoreTree {
    /// The tree of `path` in `store`.
    pub fn new(store: &StoreHandle, path: &StorePath, limits: Limits) -> Self {
        Self { store: store.clone(), name: path.as_str().into(), limits }
    }
}

#[cfg(test)]
mod tests;
