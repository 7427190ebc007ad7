//! Which path a NAR of a bank is of, by its NarHash and by the name of its file: read from the narinfos in
//! the background, because the names alone do not tell.

use std::collections::{HashMap, HashSet};

use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;

/// What the narinfos say that were read.
#[derive(Default)]
pub(super) struct Names {
    paths: HashMap<Sha256, StorePathHash>,
    /// What each narinfo promises of its file, in bytes.
    sizes: HashMap<Sha256, u64>,
    read: HashSet<StorePathHash>,
}

impl Names {
    /// Takes what a narinfo says, whose NAR has this name.
    pub(super) fn learn(&mut self, narinfo: &NarInfo, name: NarFileName) {
        let hash = narinfo.info.path.hash();
        self.read.insert(hash);
        self.paths.insert(narinfo.info.nar_hash, hash);
        self.paths.insert(name.hash, hash);
        match narinfo.file_size {
            Some(size) => self.sizes.insert(name.hash, size),
            None => self.sizes.remove(&name.hash),
        };
    }

    /// The path that has a NAR of this NarHash, or in a file of this name; one where several have it.
    pub(super) fn path_of(&self, nar: Sha256) -> Option<StorePathHash> {
        self.paths.get(&nar).copied()
    }

    /// The size that the narinfo of a file promises, in bytes.
    pub(super) fn promised(&self, name: NarFileName) -> Option<u64> {
        self.sizes.get(&name.hash).copied()
    }

    /// Some of those paths that have not been read, at most `most`, and whether there are more.
    pub(super) fn unread(
        &self,
        paths: &HashSet<StorePathHash>,
        most: usize,
    ) -> (Vec<StorePathHash>, bool) {
        let mut unread = paths.iter().filter(|hash| !self.read.contains(hash));
        let some = unread.by_ref().take(most).copied().collect();
        (some, unread.next().is_some())
    }

    /// Notes that these were read, whether there was anything to learn or not, and forgets all that
    /// are gone.
    pub(super) fn were_read(&mut self, read: Vec<StorePathHash>, paths: &HashSet<StorePathHash>) {
        self.read.extend(read);
        if self.read.len() > paths.len() {
            self.read.retain(|hash| paths.contains(hash));
            self.paths.retain(|_, hash| paths.contains(hash));
            let Self { sizes, paths, .. } = self;
            sizes.retain(|nar, _| paths.contains_key(nar));
        }
    }
}
