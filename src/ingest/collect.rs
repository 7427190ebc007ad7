//! Pushing while paths are collected.
//!
//! Whoever publishes holds the gate together with others who do, from the look at what is there to the end; whoever
//! removes holds it alone, for a few paths at a time. In between it is noted what those who published rely on: what
//! they published, what they found there, and what that refers to.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::publish::Ingest;
use crate::bank::publish::commit::NewPath;
use crate::nix::hash::Sha256;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;

/// What was relied on since a collection began.
#[derive(Debug, Default)]
pub struct Relied {
    /// The paths.
    pub paths: HashSet<StorePathHash>,
    /// The NARs of what was published.
    pub nars: HashSet<Sha256>,
}

/// Between those who publish and the one who removes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    gate: RwLock<()>,
    /// Nothing while nobody collects.
    relied: Mutex<Option<Relied>>,
}

/// A collection under way: from its beginning to its end it is noted what is relied on.
pub struct Collecting<'a>(&'a Ingest);

impl Ingest {
    /// Begins a collection; nothing where one is under way already.
    pub fn begin_collecting(&self) -> Option<Collecting<'_>> {
        // What is being published now may rely on what is read from here on.
        let _alone = self.gate.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut relied = self.relied();
        if relied.is_some() {
            return None;
        }
        *relied = Some(Relied::default());
        Some(Collecting(self))
    }

    /// Held by whoever publishes.
    pub(super) fn publishing(&self) -> RwLockReadGuard<'_, ()> {
        // It guards names on disk, which a panic leaves as a crash would.
        self.gate.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody goes by this path being there.
    pub(super) fn rely_on(&self, hash: StorePathHash) {
        if let Some(relied) = &mut *self.relied() {
            relied.paths.insert(hash);
        }
    }

    /// Notes what new paths rely on.
    pub(super) fn rely_on_all_of(&self, paths: &[NewPath]) {
        let mut relied = self.relied();
        let Some(relied) = &mut *relied else { return };
        for path in paths {
            relied.paths.insert(path.hash);
            relied.nars.insert(path.nar.1.hash);
            // We have just written it.
            if let Ok(narinfo) = NarInfo::parse(path.narinfo.as_bytes(), self.store_dir()) {
                relied.paths.extend(narinfo.info.references.iter().map(|path| path.hash()));
            }
        }
    }

    fn relied(&self) -> MutexGuard<'_, Option<Relied>> {
        self.gate.relied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collecting<'_> {
    /// Does `work` while nobody publishes, with what was relied on since the beginning.
    pub fn alone<T>(&self, work: impl FnOnce(&Relied) -> T) -> T {
        let _alone = self.0.gate.gate.write().unwrap_or_else(PoisonError::into_inner);
        let relied = self.0.relied();
        work(relied.as_ref().unwrap_or(&Relied::default()))
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        *self.0.relied() = None;
    }
}
