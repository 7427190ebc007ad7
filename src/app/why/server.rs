//! What the banks and the state database of a server say of a path; the server need not run.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::bank::{Bank, BankError, open_regular};
use crate::config::CacheConfig;
use crate::index::state::{ConflictRecord, PushRecord, StateDb, StateError, Tombstone};
use crate::keep::keepers::{Keepers, keepers};
use crate::nix::narinfo::{MAX_TEXT, NarInfo};
use crate::nix::signature::{KeyName, fingerprint};
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};

/// How long pins may be followed.
const FOLLOW: Duration = Duration::from_secs(30);

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The state database cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A bank cannot be read.
    #[error(transparent)]
    Bank(#[from] BankError),
}

/// What one cache knows of a path.
pub struct Found {
    /// The cache.
    pub cache: String,
    /// What lies in its bank.
    pub here: Option<Here>,
    /// Who pushed it, oldest first.
    pub pushes: Vec<PushRecord>,
    /// What was refused of it.
    pub conflicts: Vec<ConflictRecord>,
    /// When and why it went.
    pub tombstones: Vec<Tombstone>,
    /// What keeps it.
    pub kept_by: Keepers,
}

/// A path that lies in a bank.
pub struct Here {
    /// What it says of itself.
    pub narinfo: NarInfo,
    /// Since when, in seconds since 1970: the time of its narinfo, which is written anew when a signature comes.
    pub since: Option<i64>,
    /// The upstream that signed it, for which reason a push from elsewhere would have left it out.
    pub upstream: Option<KeyName>,
}

/// Looks. Blocks.
pub fn look(
    cache: &CacheConfig,
    hash: StorePathHash,
    state: Option<&StateDb>,
) -> Result<Found, LookError> {
    let here = here(cache, hash)?;
    let mut found = Found {
        cache: cache.name.clone(),
        here,
        pushes: Vec::new(),
        conflicts: Vec::new(),
        tombstones: Vec::new(),
        kept_by: Keepers { is_whole: true, ..Keepers::default() },
    };
    let Some(state) = state else { return Ok(found) };
    let name = Some(cache.name.as_str());
    found.pushes = state.pushes_of(name, hash)?;
    found.conflicts = state.conflicts_of(name, hash)?;
    found.tombstones = state.tombstones_of(name, hash)?;
    if found.here.is_some()
        && let Some(store_dir) = Bank::store_dir_at(&cache.directory)
    {
        let references = |hash| {
            // One that cannot be read leads nowhere.
            let found = narinfo(&cache.directory, &store_dir, hash).ok().flatten();
            let references = found.map(|found| found.info.references).unwrap_or_default();
            references.iter().map(StorePath::hash).collect()
        };
        let pinned = state.pinned_by_name(&cache.name)?;
        found.kept_by = keepers(&pinned, hash, references, Instant::now() + FOLLOW);
    }
    Ok(found)
}

fn here(cache: &CacheConfig, hash: StorePathHash) -> Result<Option<Here>, BankError> {
    let path = file_of(&cache.directory, hash);
    let Some((file, _)) = open_regular(&path)? else { return Ok(None) };
    let Some(store_dir) = Bank::store_dir_at(&cache.directory) else {
        return Err(BankError::Away(cache.directory.clone()));
    };
    let written = file.metadata().ok().and_then(|metadata| metadata.modified().ok());
    let since = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let narinfo = read(file, path, &store_dir)?;
    let text = fingerprint(&store_dir, &narinfo.info);
    let signed = |key: &&crate::sign::PublicKey| {
        narinfo.info.signatures.iter().any(|signature| key.verifies(&text, signature))
    };
    let upstream = cache.upstream_keys.iter().find(signed).map(|key| key.name().clone());
    let since = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    Ok(Some(Here { narinfo, since, upstream }))
}

fn file_of(bank: &Path, hash: StorePathHash) -> PathBuf {
    bank.join(format!("{hash}.narinfo"))
}

/// The narinfo of a path in the bank at a directory.
pub(super) fn narinfo(
    bank: &Path,
    store_dir: &StoreDir,
    hash: StorePathHash,
) -> Result<Option<NarInfo>, BankError> {
    let path = file_of(bank, hash);
    open_regular(&path)?.map(|(file, _)| read(file, path, store_dir)).transpose()
}

fn read(file: File, path: PathBuf, store_dir: &StoreDir) -> Result<NarInfo, BankError> {
    let mut text = Vec::new();
    let read = file.take(MAX_TEXT as u64 + 1).read_to_end(&mut text);
    read.map_err(|source| BankError::Io { path: path.clone(), source })?;
    let damaged = |_| BankError::Damaged { path, what: "not a narinfo" };
    NarInfo::parse(&text, store_dir).map_err(damaged)
}

/// Every path in the bank at a directory; none where there is no such directory.
pub(super) fn hashes(bank: &Path) -> Result<Vec<StorePathHash>, BankError> {
    let failed = |source| BankError::Io { path: bank.to_owned(), source };
    let entries = match std::fs::read_dir(bank) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut hashes = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let hash = name.to_str().and_then(|name| name.strip_suffix(".narinfo"));
        hashes.extend(hash.and_then(StorePathHash::parse));
    }
    Ok(hashes)
}
