//! The host's own store as a source: Nix's database says what is valid, the tree is what is sent.
//!
//! Nothing of it is remembered past a change of the database, and nothing is written to it. A NAR
//! is hashed on its way out; one that is not what the database says is never sent whole, and its
//! path is answered as absent for a while ([`QUARANTINE`]).

pub mod bake;
pub mod database;
pub mod objects;
pub mod remembered;
pub mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::search::Wanted;
use super::storm::Storm;
use super::vital::Vital;
use super::{Expected, Nar, NarBody, SourceError, Stored, StoredFile};
use crate::bank::is_read_error;
use crate::index::presence::Presence;
use crate::nix::hash::Sha256;
use crate::nix::nar;
use crate::nix::nar_url::{NarFileName, NarRequest};
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use bake::Bakery;
use database::{Database, DatabaseError};
use tree::{StoreHandle, StoreTree};

/// How long a path with wrong bytes is answered as absent before it is tried again: it may have
/// been repaired, which the database does not tell.
pub const QUARANTINE: Duration = Duration::from_secs(300);
/// At most this many paths are in quarantine; beyond it, the oldest is tried again early.
const MAX_QUARANTINE: usize = 10_000;

/// Where a store is.
#[derive(Clone, Debug)]
pub struct StoreLayout {
    /// The logical directory, as clients know it: `/nix/store`.
    pub store_dir: StoreDir,
    /// Where its files are: the same, or below the root of a chroot store.
    pub real_dir: PathBuf,
    /// Nix's state, as in `/nix/var/nix`; the database is in `db/`.
    pub state_dir: PathBuf,
    /// Nix's logs, as in `/nix/var/log/nix`; build logs are in `drvs/`.
    pub log_dir: PathBuf,
}

/// The host's store.
pub struct LocalStore {
    layout: StoreLayout,
    nar_limits: nar::Limits,
    database: Database,
    pub(super) presence: Presence,
    bakery: Option<Arc<Bakery>>,
    first_read_is_zstd: bool,
    quarantine: Mutex<HashMap<StorePathHash, Instant>>,
    pub(super) vital: Arc<Vital>,
    storm: Storm,
    read_errors: OnceLock<IntCounter>,
}

/// A tree of the store that is to be sent as a NAR.
pub struct TreeNar {
    /// The tree.
    pub tree: StoreTree,
    /// What the database says of it.
    pub info: PathInfo,
}

impl LocalStore {
    /// A store at `layout`, whose database is waited for no longer than `deadline`.
    ///
    /// With `first_read_is_zstd` a path that is not baked yet is offered as zstd all the same, and
    /// compressed while it is first read: fewer bytes on a slow wire, but of unknown length.
    pub fn new(
        layout: StoreLayout,
        nar_limits: nar::Limits,
        deadline: Duration,
        bakery: Option<Arc<Bakery>>,
        first_read_is_zstd: bool,
    ) -> Self {
        let database =
            Database::new(&layout.state_dir.join("db"), layout.store_dir.clone(), deadline);
        Self {
            layout,
            nar_limits,
            database,
            presence: Presence::default(),
            bakery,
            first_read_is_zstd,
            quarantine: Mutex::default(),
            vital: Arc::default(),
            storm: Storm::default(),
            read_errors: OnceLock::new(),
        }
    }

    /// Where its NARs are baked, if they are.
    pub fn bakery(&self) -> Option<&Arc<Bakery>> {
        self.bakery.as_ref()
    }

    /// Answers the path as absent for a while: its bytes were wrong.
    pub fn quarantine(&self, path: StorePathHash) {
        let mut quarantine = self.lock_quarantine();
        if quarantine.len() >= MAX_QUARANTINE
            && let Some(oldest) =
                quarantine.iter().min_by_key(|(_, since)| **since).map(|(path, _)| *path)
        {
            quarantine.remove(&oldest);
        }
        quarantine.insert(path, Instant::now());
        drop(quarantine);
        self.presence.truth_changed();
    }

    pub(super) fn count_read_errors_with(&self, counter: IntCounter) {
        // Several caches may share a store, and they count the same.
        let _ = self.read_errors.set(counter);
    }

    /// Takes it that a file of the path could not be read: says whether the path is answered as absent
    /// for a while, and not everything is away. Blocks.
    pub fn unreadable(&self, path: &StorePath, why: &str) -> bool {
        if let Some(errors) = self.read_errors.get() {
            errors.inc();
        }
        let report = self.vital.ask(&self.layout.real_dir.join(path.as_str()));
        let everything = self.vital.check().is_err()
            || (!self.vital.is_watched() && self.storm.strike(path.as_str(), Instant::now()));
        if everything {
            return false;
        }
        if !self.is_in_quarantine(path.hash()) {
            let report = report.map_or_else(String::new, |said| format!(". The pool says: {said}"));
            tracing::error!(%path, "cannot be read, answered as not there: {why}{report}");
        }
        self.quarantine(path.hash());
        true
    }

    pub(super) fn look(&self) -> Result<(), SourceError> {
        if self.database.has_changed().map_err(refuse)? {
            self.presence.truth_changed();
        }
        match std::fs::metadata(&self.layout.real_dir) {
            Ok(_) => Ok(()),
            Err(error) => Err(SourceError::Unavailable(format!("the store directory: {error}"))),
        }
    }

    pub(super) fn scan_if_due(&self) -> Result<(), SourceError> {
        let Some(scan) = self.presence.begin_scan() else { return Ok(()) };
        scan.finish(self.database.scan().map_err(refuse)?);
        Ok(())
    }

    pub(super) fn find(&self, hash: StorePathHash) -> Result<Option<NarInfo>, SourceError> {
        let Some(info) = self.valid_path(hash)? else { return Ok(None) };
        let baked = self.bakery.as_ref().and_then(|bakery| bakery.baked(info.nar_hash));
        let (name, compression) = if baked.is_some() || self.offers_zstd() {
            (NarFileName::zstd(info.nar_hash), "zstd")
        } else {
            (NarFileName::bare(info.nar_hash), "none")
        };
        Ok(Some(NarInfo {
            url: name.url(),
            compression: compression.into(),
            file_hash: baked.as_ref().and_then(|baked| baked.file_hash),
            file_size: baked.map(|baked| baked.size).or(match compression {
                "none" => Some(info.nar_size),
                _ => None,
            }),
            info,
        }))
    }

    pub(super) fn nar(&self, request: NarRequest) -> Result<Option<Nar>, SourceError> {
        match request {
            NarRequest::File { name, path } if name.is_zstd() => self.zstd(name.hash, path),
            NarRequest::File { name, path } if name.is_bare() => self.bare(name.hash, path),
            NarRequest::File { .. } => Ok(None),
            NarRequest::OfPath { path, nar_hash } => {
                let Some(info) = self.valid_path(path)? else { return Ok(None) };
                match nar_hash {
                    Some(asked) if asked != info.nar_hash => Ok(None),
                    _ => self.tree_nar(info).map(Some),
                }
            }
        }
    }

    /// The tree of a valid path, with what the database says of it.
    pub fn tree(&self, hash: StorePathHash) -> Result<Option<(StoreTree, PathInfo)>, SourceError> {
        let Some(info) = self.valid_path(hash)? else { return Ok(None) };
        Ok(Some((self.tree_of(&info.path)?, info)))
    }

    /// Valid paths that are wanted; `most` of them.
    pub(super) fn search(
        &self,
        wanted: &Wanted,
        most: u32,
    ) -> Result<Vec<StorePathHash>, SourceError> {
        self.database.search(wanted, most).map_err(refuse)
    }

    fn offers_zstd(&self) -> bool {
        self.first_read_is_zstd && self.bakery.is_some()
    }

    fn zstd(
        &self,
        nar_hash: Sha256,
        path: Option<StorePathHash>,
    ) -> Result<Option<Nar>, SourceError> {
        let Some(bakery) = &self.bakery else { return Ok(None) };
        let tag = NarFileName::zstd(nar_hash).file_name();
        if let Some((file, size)) = bakery.open(nar_hash)? {
            let file = self.baked_file(bakery, nar_hash, file);
            if file.probe().is_ok() {
                let body = NarBody::Stored(Stored::File(file));
                return Ok(Some(Nar { body, size: Some(size), tag }));
            }
        }
        let Some(info) = self.path_of_nar(nar_hash, path)? else { return Ok(None) };
        let job = bakery.bake_now(self.tree_of(&info.path)?, info)?;
        Ok(Some(Nar { body: NarBody::Growing(Arc::clone(&job.file)), size: None, tag }))
    }

    fn bare(
        &self,
        nar_hash: Sha256,
        path: Option<StorePathHash>,
    ) -> Result<Option<Nar>, SourceError> {
        let Some(info) = self.path_of_nar(nar_hash, path)? else {
            // The path may be collected while its baked NAR is still there.
            return self.baked_content(nar_hash, None);
        };
        self.tree_nar(info).map(Some)
    }

    /// The uncompressed NAR of a valid path: out of the baked file where there is one.
    fn tree_nar(&self, info: PathInfo) -> Result<Nar, SourceError> {
        if let Some(nar) = self.baked_content(info.nar_hash, Some(&info))? {
            return Ok(nar);
        }
        let (size, tag) = (Some(info.nar_size), info.nar_hash.to_nix32());
        let tree = self.tree_of(&info.path)?;
        Ok(Nar { body: NarBody::Tree(TreeNar { tree, info }), size, tag })
    }

    fn baked_content(
        &self,
        nar_hash: Sha256,
        info: Option<&PathInfo>,
    ) -> Result<Option<Nar>, SourceError> {
        let Some(bakery) = &self.bakery else { return Ok(None) };
        let watch = |file| self.baked_file(bakery, nar_hash, file);
        let Some(reader) = bakery.reader(nar_hash, watch)? else { return Ok(None) };
        let size = reader.size();
        let expected = match info {
            Some(info) => Expected::from(info),
            None => Expected {
                name: format!("{nar_hash}, whose path was collected"),
                path: None,
                nar_hash,
                nar_size: size,
            },
        };
        let body = NarBody::Stored(Stored::Seekable(Box::new(reader), expected));
        Ok(Some(Nar { body, size: Some(size), tag: nar_hash.to_nix32() }))
    }

    /// A baked file, which is baked again if it cannot be read.
    fn baked_file(&self, bakery: &Arc<Bakery>, nar_hash: Sha256, file: File) -> StoredFile {
        let (bakery, errors) = (Arc::clone(bakery), self.read_errors.get().cloned());
        let forget = move |_, error: &io::Error| {
            if let Some(errors) = &errors {
                errors.inc();
            }
            bakery.could_not_be_read(nar_hash, error);
        };
        StoredFile::watched(file, Arc::new(forget))
    }

    fn path_of_nar(
        &self,
        nar_hash: Sha256,
        hint: Option<StorePathHash>,
    ) -> Result<Option<PathInfo>, SourceError> {
        let candidates = [hint, self.presence.path_of_nar(nar_hash)];
        for hash in candidates.into_iter().flatten() {
            if let Some(info) = self.valid_path(hash)?
                && info.nar_hash == nar_hash
            {
                return Ok(Some(info));
            }
        }
        if self.presence.is_exact() {
            return Ok(None);
        }
        let Some(hash) = self.database.find_nar(nar_hash).map_err(refuse)? else {
            return Ok(None);
        };
        Ok(self.valid_path(hash)?.filter(|info| info.nar_hash == nar_hash))
    }

    /// A path that the database calls valid and whose tree is there.
    fn valid_path(&self, hash: StorePathHash) -> Result<Option<PathInfo>, SourceError> {
        let Some(info) = self.database.find(hash).map_err(refuse)? else { return Ok(None) };
        if self.is_in_quarantine(hash) {
            return Err(SourceError::Damaged(format!("{} has wrong bytes", info.path)));
        }
        match std::fs::symlink_metadata(self.layout.real_dir.join(info.path.as_str())) {
            Ok(_) => Ok(Some(info)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The collector removes the tree before the row is gone, or somebody else did.
                Err(SourceError::Damaged(format!("{} is valid but not there", info.path)))
            }
            Err(error)
                if is_read_error(&error) && self.unreadable(&info.path, &error.to_string()) =>
            {
                Err(SourceError::Damaged(format!("{}: {error}", info.path)))
            }
            Err(error) => Err(SourceError::Unavailable(format!("{}: {error}", info.path))),
        }
    }

    fn tree_of(&self, path: &StorePath) -> Result<StoreTree, SourceError> {
        // Opened for each tree: a handle that is kept would keep a dataset from being unmounted.
        let store = StoreHandle::open(&self.layout.real_dir)
            .map_err(|error| SourceError::Unavailable(format!("the store directory: {error}")))?;
        Ok(StoreTree::new(&store, path, self.nar_limits))
    }

    fn is_in_quarantine(&self, hash: StorePathHash) -> bool {
        let mut quarantine = self.lock_quarantine();
        match quarantine.get(&hash) {
            Some(since) if since.elapsed() < QUARANTINE => true,
            Some(_) => {
                quarantine.remove(&hash);
                false
            }
            None => false,
        }
    }

    fn lock_quarantine(&self) -> MutexGuard<'_, HashMap<StorePathHash, Instant>> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(error: DatabaseError) -> SourceError {
    match error {
        DatabaseError::Row { .. } => {
            tracing::warn!("answered as not there: {error}");
            SourceError::Damaged(error.to_string())
        }
        _ => SourceError::Unavailable(error.to_string()),
    }
}
