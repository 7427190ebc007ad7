//! When paths were asked for, and which were collected.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StateDb, StateError, bad};
use crate::index::uses::Use;
use crate::nix::store_path::{StorePath, StorePathHash};

/// How many tombstones are kept of all caches; the newest ones.
const MAX_TOMBSTONES: i64 = 1_000_000;

const USED: &str = "INSERT INTO uses (cache, hash, last, count) VALUES (?1, ?2, ?3, ?4) \
                    ON CONFLICT DO UPDATE SET last = max(last, excluded.last), \
                    count = min(count + excluded.count, 4294967295)";
const USES: &str = "SELECT hash, last, count FROM uses WHERE cache = ?1";
const USE: &str = "SELECT last, count FROM uses WHERE cache = ?1 AND hash = ?2";
const UNUSED: &str = "DELETE FROM uses WHERE cache = ?1 AND hash = ?2";
const BURY: &str = "INSERT INTO tombstones (cache, hash, path, at, why) \
                    VALUES (?1, ?2, ?3, ?4, ?5)";
const FORGET: &str =
    "DELETE FROM tombstones WHERE number <= (SELECT max(number) FROM tombstones) - ?1";
const COLLECTED: &str = "INSERT INTO collected (cache, at) VALUES (?1, ?2) \
                         ON CONFLICT DO UPDATE SET at = excluded.at";
const COLLECTED_AT: &str = "SELECT at FROM collected WHERE cache = ?1";
const TOMBSTONES: &str = "SELECT cache, path, at, why FROM tombstones \
                          WHERE hash = ?1 AND (?2 IS NULL OR cache = ?2) ORDER BY number";

/// A path that was here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The name of the cache.
    pub cache: String,
    /// What was here.
    pub path: StorePath,
    /// When it went, in seconds since 1970.
    pub at: i64,
    /// Why it went, for people.
    pub why: String,
}

impl StateDb {
    /// Keeps what was asked for, all of it in one transaction.
    pub fn keep_uses(&self, cache: &str, uses: &[(StorePathHash, Use)]) -> Result<(), StateError> {
        self.write(|connection| {
            let mut insert = connection.prepare_cached(USED)?;
            for (hash, used) in uses {
                insert.execute(params![cache, hash.as_bytes(), used.last, used.count])?;
            }
            Ok(())
        })
    }

    /// Tells of all that is known of what was asked for in a cache, in no order.
    pub fn each_use(
        &self,
        cache: &str,
        mut tell: impl FnMut(StorePathHash, Use),
    ) -> Result<(), StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(USES)?;
            let mut rows = select.query([cache])?;
            while let Some(row) = rows.next()? {
                let used = Use { last: row.get(1)?, count: row.get(2)? };
                tell(StorePathHash::from_bytes(row.get(0)?), used);
            }
            Ok(())
        })
    }

    /// What is kept of when a path was asked for.
    pub fn use_of(&self, cache: &str, hash: StorePathHash) -> Result<Option<Use>, StateError> {
        self.read(|connection| {
            let read = |row: &Row<'_>| Ok(Use { last: row.get(0)?, count: row.get(1)? });
            let mut select = connection.prepare_cached(USE)?;
            select.query_row(params![cache, hash.as_bytes()], read).optional()
        })
    }

    /// Notes that paths went, and forgets when they were asked for; all of it in one transaction.
    pub fn bury(&self, tombstones: &[Tombstone]) -> Result<(), StateError> {
        self.write(|connection| {
            let mut insert = connection.prepare_cached(BURY)?;
            let mut unused = connection.prepare_cached(UNUSED)?;
            for Tombstone { cache, path, at, why } in tombstones {
                let hash = path.hash();
                insert.execute(params![cache, hash.as_bytes(), path.as_str(), at, why])?;
                unused.execute(params![cache, hash.as_bytes()])?;
            }
            connection.prepare_cached(FORGET)?.execute([MAX_TOMBSTONES]).map(drop)
        })
    }

    /// Notes that a cache was collected at `now`, in seconds since 1970.
    pub fn note_collected(&self, cache: &str, now: i64) -> Result<(), StateError> {
        self.write(|connection| connection.execute(COLLECTED, params![cache, now]).map(drop))
    }

    /// When a cache was last collected; nothing if that was never noted.
    pub fn collected_at(&self, cache: &str) -> Result<Option<i64>, StateError> {
        self.read(|connection| {
            connection.query_row(COLLECTED_AT, [cache], |row| row.get(0)).optional()
        })
    }

    /// When and why a path went, each time that it did, oldest first; from one cache, or from any.
    pub fn tombstones_of(
        &self,
        cache: Option<&str>,
        hash: StorePathHash,
    ) -> Result<Vec<Tombstone>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(TOMBSTONES)?;
            let rows = select.query_map(params![hash.as_bytes(), cache], |row| {
                let path = StorePath::parse(row.get_ref(1)?.as_str()?);
                Ok(Tombstone {
                    cache: row.get(0)?,
                    path: path.map_err(|_| bad(1, "not a store path"))?,
                    at: row.get(2)?,
                    why: row.get(3)?,
                })
            })?;
            rows.collect()
        })
    }
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let all = [USED, USES, USE, UNUSED, BURY, FORGET, COLLECTED, COLLECTED_AT, TOMBSTONES];
    all.into_iter().try_for_each(|statement| connection.prepare(statement).map(drop))
}
