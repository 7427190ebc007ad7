//! Pins: named roots of a cache, each with the paths that it names.

use rusqlite::params;

use super::{StateDb, StateError, bad};
use crate::nix::store_path::StorePathHash;

const INSERT: &str = "INSERT INTO pins (cache, name, release, created) VALUES (?1, ?2, ?3, ?4) \
                      ON CONFLICT DO NOTHING";
const INSERT_PATH: &str =
    "INSERT OR IGNORE INTO pinned_paths (cache, name, hash) VALUES (?1, ?2, ?3)";
const ALL: &str = "SELECT name, release, created, \
                   (SELECT count(*) FROM pinned_paths paths \
                    WHERE paths.cache = pins.cache AND paths.name = pins.name) \
                   FROM pins WHERE cache = ?1 ORDER BY created, name";
const PATHS: &str = "SELECT hash FROM pinned_paths WHERE cache = ?1 AND name = ?2 ORDER BY hash";
const DELETE_PATHS: &str = "DELETE FROM pinned_paths WHERE cache = ?1 AND name = ?2";
const DELETE: &str = "DELETE FROM pins WHERE cache = ?1 AND name = ?2";

/// A pin, without its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// Unique in its cache.
    pub name: String,
    /// The snapshot of the release that made it, if one did.
    pub release: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// How many paths it names.
    pub paths: u64,
}

impl StateDb {
    /// Keeps a new pin of `paths`; `false` where the cache has one of that name, which stays as it is.
    pub fn add_pin(
        &self,
        cache: &str,
        name: &str,
        release: Option<&str>,
        paths: &[StorePathHash],
        now: i64,
    ) -> Result<bool, StateError> {
        self.write(|connection| {
            if connection.execute(INSERT, params![cache, name, release, now])? == 0 {
                return Ok(false);
            }
            let mut insert = connection.prepare_cached(INSERT_PATH)?;
            for path in paths {
                insert.execute(params![cache, name, path.to_string()])?;
            }
            Ok(true)
        })
    }

    /// The pins of a cache, oldest first.
    pub fn pins(&self, cache: &str) -> Result<Vec<PinRecord>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(ALL)?;
            let rows = select.query_map([cache], |row| {
                Ok(PinRecord {
                    name: row.get(0)?,
                    release: row.get(1)?,
                    created: row.get(2)?,
                    paths: row.get::<_, i64>(3)?.unsigned_abs(),
                })
            })?;
            rows.collect()
        })
    }

    /// The paths that a pin names, by hash; none where there is no such pin.
    pub fn pinned_paths(&self, cache: &str, name: &str) -> Result<Vec<StorePathHash>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(PATHS)?;
            let rows = select.query_map(params![cache, name], |row| {
                let hash: String = row.get(0)?;
                StorePathHash::parse(&hash).ok_or_else(|| bad(0, "the hash of a store path"))
            })?;
            rows.collect()
        })
    }

    /// Removes a pin. Says whether there was one.
    pub fn remove_pin(&self, cache: &str, name: &str) -> Result<bool, StateError> {
        self.write(|connection| {
            connection.execute(DELETE_PATHS, params![cache, name])?;
            Ok(connection.execute(DELETE, params![cache, name])? > 0)
        })
    }
}
