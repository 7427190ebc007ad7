//! Who pushed what, and what was refused because something else was there.

use rusqlite::{Connection, Row, params};

use super::{StateDb, StateError, bad};
use crate::nix::hash::Sha256;
use crate::nix::store_path::{StorePath, StorePathHash};

/// How many pushes are kept of all caches; the newest ones. Some 230 bytes each.
const MAX_PUSHES: i64 = 1_000_000;
/// How many conflicts are kept; the newest ones.
const MAX_CONFLICTS: i64 = 10_000;

const PUSH: &str = "INSERT INTO pushes (cache, hash, path, nar_hash, nar_size, pusher, token, \
                    address, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const FORGET_PUSHES: &str = "DELETE FROM pushes WHERE rowid <= \
                             (SELECT max(rowid) FROM pushes) - ?1";
const PUSHES: &str = "SELECT cache, path, nar_hash, nar_size, pusher, token, address, at \
                      FROM pushes WHERE hash = ?1 AND (?2 IS NULL OR cache = ?2) ORDER BY rowid";
/// So many of the newest are looked through for those of one cache.
const LOOKED_THROUGH: i64 = 20_000;
const RECENT: &str = "SELECT cache, path, nar_hash, nar_size, pusher, token, address, at FROM pushes \
                      WHERE rowid > (SELECT max(rowid) FROM pushes) - ?3 AND cache = ?1 \
                      ORDER BY rowid DESC LIMIT ?2";
const NAMED: &str = "SELECT DISTINCT path FROM pushes \
                     WHERE cache = ?1 AND instr(path, ?2) > 0 LIMIT ?3";
const CONFLICT: &str = "INSERT INTO conflicts (cache, hash, kept, refused, pusher, token, address, \
                        at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const FORGET_CONFLICTS: &str = "DELETE FROM conflicts WHERE number <= \
                                (SELECT max(number) FROM conflicts) - ?1";
const CONFLICTS: &str = "SELECT cache, hash, kept, refused, pusher, token, address, at \
                         FROM conflicts WHERE hash = ?1 AND (?2 IS NULL OR cache = ?2) \
                         ORDER BY number";

/// A path that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRecord {
    /// The name of the cache.
    pub cache: String,
    /// What was published.
    pub path: StorePath,
    /// Of the uncompressed NAR.
    pub nar_hash: Sha256,
    /// Of the uncompressed NAR, in bytes.
    pub nar_size: u64,
    /// The name of whoever pushed it.
    pub pusher: String,
    /// The token that was shown, if one was.
    pub token: Option<String>,
    /// Where it came from.
    pub address: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// A push of another NAR than the one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRecord {
    /// The name of the cache.
    pub cache: String,
    /// The path.
    pub path: StorePathHash,
    /// The NarHash that stayed.
    pub kept: Sha256,
    /// The NarHash that was refused.
    pub refused: Sha256,
    /// The name of whoever pushed the refused one.
    pub pusher: String,
    /// The token that was shown, if one was.
    pub token: Option<String>,
    /// Where it came from.
    pub address: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

impl StateDb {
    /// Notes who published what, all of it in one transaction.
    pub fn record_pushes(&self, pushes: &[PushRecord]) -> Result<(), StateError> {
        self.record_pushes_of(pushes, MAX_PUSHES)
    }

    pub(super) fn record_pushes_of(
        &self,
        pushes: &[PushRecord],
        most: i64,
    ) -> Result<(), StateError> {
        self.write(|connection| {
            let mut insert = connection.prepare_cached(PUSH)?;
            for push in pushes {
                insert.execute(params![
                    push.cache,
                    push.path.hash().to_string(),
                    push.path.as_str(),
                    push.nar_hash.to_nix32(),
                    i64::try_from(push.nar_size).unwrap_or(i64::MAX),
                    push.pusher,
                    push.token,
                    push.address,
                    push.at
                ])?;
            }
            connection.prepare_cached(FORGET_PUSHES)?.execute([most]).map(drop)
        })
    }

    /// Who published a path, oldest first; in one cache, or in any.
    pub fn pushes_of(
        &self,
        cache: Option<&str>,
        hash: StorePathHash,
    ) -> Result<Vec<PushRecord>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(PUSHES)?;
            select.query_map(params![hash.to_string(), cache], read_push)?.collect()
        })
    }

    /// What was published in a cache lately, the newest first; `most` of it.
    pub fn recent_pushes(&self, cache: &str, most: u32) -> Result<Vec<PushRecord>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(RECENT)?;
            select.query_map(params![cache, most, LOOKED_THROUGH], read_push)?.collect()
        })
    }

    /// Paths that were published in a cache and whose last part, `HASH-NAME`, contains `text`; `most` of them. Some
    /// of them may be gone. Reads the whole table.
    pub fn pushed_with(
        &self,
        cache: &str,
        text: &str,
        most: u32,
    ) -> Result<Vec<StorePath>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(NAMED)?;
            let rows = select.query_map(params![cache, text, most], |row| {
                let path = StorePath::parse(row.get_ref(0)?.as_str()?);
                path.map_err(|_| bad(0, "not a store path"))
            })?;
            rows.collect()
        })
    }

    /// Notes that another NAR than the one that is there was pushed.
    pub fn record_conflict(&self, conflict: &ConflictRecord) -> Result<(), StateError> {
        self.record_conflict_of(conflict, MAX_CONFLICTS)
    }

    pub(super) fn record_conflict_of(
        &self,
        conflict: &ConflictRecord,
        most: i64,
    ) -> Result<(), StateError> {
        self.write(|connection| {
            connection.prepare_cached(CONFLICT)?.execute(params![
                conflict.cache,
                conflict.path.to_string(),
                conflict.kept.to_nix32(),
                conflict.refused.to_nix32(),
                conflict.pusher,
                conflict.token,
                conflict.address,
                conflict.at
            ])?;
            connection.prepare_cached(FORGET_CONFLICTS)?.execute([most]).map(drop)
        })
    }

    /// What was refused of a path, oldest first; in one cache, or in any.
    pub fn conflicts_of(
        &self,
        cache: Option<&str>,
        hash: StorePathHash,
    ) -> Result<Vec<ConflictRecord>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(CONFLICTS)?;
            select.query_map(params![hash.to_string(), cache], read_conflict)?.collect()
        })
    }
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    for statement in
        [PUSH, FORGET_PUSHES, PUSHES, RECENT, NAMED, CONFLICT, FORGET_CONFLICTS, CONFLICTS]
    {
        connection.prepare(statement)?;
    }
    Ok(())
}

fn read_push(row: &Row<'_>) -> rusqlite::Result<PushRecord> {
    let path = StorePath::parse(row.get_ref(1)?.as_str()?);
    Ok(PushRecord {
        cache: row.get(0)?,
        path: path.map_err(|_| bad(1, "not a store path"))?,
        nar_hash: nar_hash(row, 2)?,
        nar_size: u64::try_from(row.get::<_, i64>(3)?).map_err(|_| bad(3, "not a size"))?,
        pusher: row.get(4)?,
        token: row.get(5)?,
        address: row.get(6)?,
        at: row.get(7)?,
    })
}

fn read_conflict(row: &Row<'_>) -> rusqlite::Result<ConflictRecord> {
    let path = StorePathHash::parse(row.get_ref(1)?.as_str()?);
    Ok(ConflictRecord {
        cache: row.get(0)?,
        path: path.ok_or_else(|| bad(1, "not a hash"))?,
        kept: nar_hash(row, 2)?,
        refused: nar_hash(row, 3)?,
        pusher: row.get(4)?,
        token: row.get(5)?,
        address: row.get(6)?,
        at: row.get(7)?,
    })
}

fn nar_hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Sha256> {
    let text = row.get_ref(column)?.as_str()?;
    Sha256::from_nix32(text).ok_or_else(|| bad(column, "not a hash"))
}
