//! How far a cache was verified, and what was found.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StateDb, StateError};
use crate::nix::store_path::StorePathHash;

const GET: &str = "SELECT began, position, paths, bytes, ended FROM verifications WHERE cache = ?1";
const NOTE: &str = "INSERT INTO verifications (cache, began, position, paths, bytes, ended) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET \
                    began = excluded.began, position = excluded.position, paths = excluded.paths, \
                    bytes = excluded.bytes, ended = excluded.ended";
const FOUND: &str = "INSERT OR REPLACE INTO findings (cache, hash, kind, what, at) \
                     VALUES (?1, ?2, ?3, ?4, ?5)";
const CLEAR: &str = "DELETE FROM findings WHERE cache = ?1 AND hash = ?2";
const FINDINGS: &str =
    "SELECT hash, kind, what, at FROM findings WHERE cache = ?1 ORDER BY hash, kind";

/// How far a cache is verified. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// When it began.
    pub began: i64,
    /// The last path that was verified: those after it follow.
    pub position: Option<StorePathHash>,
    /// How many paths were.
    pub paths: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// When it ended, if it did.
    pub ended: Option<i64>,
}

/// Something that was found, and not mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingRecord {
    /// The path.
    pub hash: StorePathHash,
    /// What it is about, as [`crate::keep::verify::Kind::label`] says it.
    pub kind: String,
    /// What is wrong, for people.
    pub what: String,
    /// When it was found, in seconds since 1970.
    pub at: i64,
}

impl StateDb {
    /// How far a cache is verified; nothing if it never was.
    pub fn verification(&self, cache: &str) -> Result<Option<Verification>, StateError> {
        self.read(|connection| connection.query_row(GET, [cache], read).optional())
    }

    /// Notes how far it is.
    pub fn note_verification(&self, cache: &str, now: &Verification) -> Result<(), StateError> {
        let Verification { began, position, paths, bytes, ended } = now;
        let position = position.as_ref().map(StorePathHash::as_bytes);
        let [paths, bytes] = [paths, bytes].map(|count| i64::try_from(*count).unwrap_or(i64::MAX));
        self.write(|connection| {
            connection.execute(NOTE, params![cache, began, position, paths, bytes, ended]).map(drop)
        })
    }

    /// Notes what was found of a path, in the place of what was found of it before.
    pub fn note_findings(
        &self,
        cache: &str,
        hash: StorePathHash,
        findings: &[(&str, String)],
        now: i64,
    ) -> Result<(), StateError> {
        self.write(|connection| {
            connection.prepare_cached(CLEAR)?.execute(params![cache, hash.as_bytes()])?;
            let mut insert = connection.prepare_cached(FOUND)?;
            for (kind, what) in findings {
                insert.execute(params![cache, hash.as_bytes(), kind, what, now])?;
            }
            Ok(())
        })
    }

    /// All that was found in a cache, and not mended.
    pub fn findings(&self, cache: &str) -> Result<Vec<FindingRecord>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(FINDINGS)?;
            let rows = select.query_map([cache], |row| {
                let hash: [u8; 20] = row.get(0)?;
                let hash = StorePathHash::from_bytes(hash);
                Ok(FindingRecord { hash, kind: row.get(1)?, what: row.get(2)?, at: row.get(3)? })
            })?;
            rows.collect()
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Verification> {
    let position: Option<[u8; 20]> = row.get(1)?;
    Ok(Verification {
        began: row.get(0)?,
        position: position.map(StorePathHash::from_bytes),
        paths: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        ended: row.get(4)?,
    })
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    [GET, NOTE, FOUND, CLEAR, FINDINGS]
        .into_iter()
        .try_for_each(|statement| connection.prepare(statement).map(drop))
}
