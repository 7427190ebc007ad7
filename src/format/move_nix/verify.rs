//! That the copy of the store is what Nix's database says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Watcher;
use super::copy::Progress;
use crate::nix::hash::Sha256;
use crate::nix::nar::Limits;
use crate::nix::store_path::{StoreDir, StorePath};
use crate::source::local::database::{Database, DatabaseError};
use crate::source::local::tree::{
    Expected, NarStream, ReadPool, StoreHandle, StoreTree, TreeError,
};

/// How long a database that somebody has locked is waited for.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// Why the copy cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A path is right in the old tree and wrong in the copy.
    #[error(
        "the copy of {path} is wrong: {why}. Nothing was changed; look at the pool, then run it again"
    )]
    Wrong {
        /// Which path.
        path: String,
        /// What is wrong with it.
        why: TreeError,
    },
    /// A store cannot be opened, or no thread started.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A path that is to be hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    path: StorePath,
    expected: Expected,
}

/// Hashes store paths, and remembers which it has hashed.
pub struct Verifier {
    copy: StoreHandle,
    original: StoreHandle,
    pool: Arc<ReadPool>,
    /// What was right when it was hashed.
    right: BTreeMap<StorePath, Sha256>,
    /// What is wrong in both trees.
    damaged: BTreeSet<StorePath>,
}

impl Verifier {
    /// For the store `copy`, made from the store `original`.
    pub fn new(copy: &Path, original: &Path) -> Result<Self, VerifyError> {
        let open = |path: &Path| {
            StoreHandle::open(path).map_err(|source| VerifyError::Io { path: path.into(), source })
        };
        let pool = ReadPool::start(ReadPool::default_threads())
            .map_err(|source| VerifyError::Io { path: "a thread".into(), source })?;
        Ok(Self {
            copy: open(copy)?,
            original: open(original)?,
            pool,
            right: BTreeMap::new(),
            damaged: BTreeSet::new(),
        })
    }

    /// The valid paths that the database in `directory` has now. It is closed again afterwards: while
    /// it is open there are files beside it.
    pub fn list(&self, directory: &Path) -> Result<Vec<Listed>, VerifyError> {
        let database = Database::new(directory, StoreDir::default(), DATABASE_PATIENCE);
        let mut listed = Vec::new();
        for hash in database.scan()?.paths.as_slice() {
            // It may have been collected since.
            if let Some(info) = database.find(*hash)? {
                let (nar_hash, nar_size) = (info.nar_hash, info.nar_size);
                listed.push(Listed { path: info.path, expected: Expected { nar_hash, nar_size } });
            }
        }
        Ok(listed)
    }

    /// Hashes what is `listed`, while the store is in use: what is not right yet is left for later.
    pub fn begin(&mut self, listed: &[Listed], watcher: &mut dyn Watcher) {
        let mut progress = Progress::default();
        for one in listed {
            if self.hash(&self.copy, one).is_ok() {
                self.right.insert(one.path.clone(), one.expected.nar_hash);
            }
            progress.files += 1;
            progress.bytes += one.expected.nar_size;
            watcher.progress(&progress);
        }
    }

    /// Hashes what is `listed` and was not right when it was hashed before, or has `changed` since. What
    /// is wrong in the copy must be wrong in the original as well.
    pub fn finish(
        &mut self,
        listed: &[Listed],
        changed: &BTreeSet<StorePath>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), VerifyError> {
        let mut progress = Progress::default();
        for one in listed {
            let was_right = self.right.get(&one.path) == Some(&one.expected.nar_hash);
            if was_right && !changed.contains(&one.path) {
                continue;
            }
            if let Err(why) = self.hash(&self.copy, one) {
                if self.hash(&self.original, one).is_ok() {
                    return Err(VerifyError::Wrong { path: one.path.to_string(), why });
                }
                self.damaged.insert(one.path.clone());
            }
            progress.files += 1;
            progress.bytes += one.expected.nar_size;
            watcher.progress(&progress);
        }
        Ok(())
    }

    fn hash(&self, store: &StoreHandle, listed: &Listed) -> Result<(), TreeError> {
        // Whatever is in a store has to be moved, also what is too large to be served.
        let limits = Limits { max_entries: u64::MAX, max_size: u64::MAX, ..Limits::default() };
        let tree = StoreTree::new(store, &listed.path, limits);
        let mut stream = NarStream::start(&self.pool, tree, None, Some(listed.expected));
        while let Some(chunk) = stream.next_blocking() {
            chunk?;
        }
        Ok(())
    }

    /// The paths whose bytes are not what the database says, in the old tree as in the copy.
    pub fn damaged(&self) -> Vec<String> {
        self.damaged.iter().map(ToString::to_string).collect()
    }
}
