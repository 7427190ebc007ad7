//! Under which names NARs were pushed.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StateDb, StateError, bad};
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;

/// How many names are kept of all caches; the newest ones. Some 200 bytes each.
const MAX_NAMES: i64 = 1_000_000;

// What is pushed again is as new as that.
const NAME: &str = "INSERT OR REPLACE INTO nar_names (cache, name, nar_hash, compression) \
                    VALUES (?1, ?2, ?3, ?4)";
const FORGET: &str = "DELETE FROM nar_names WHERE number <= \
                      (SELECT max(number) FROM nar_names) - ?1";
const FIND: &str = "SELECT nar_hash, compression FROM nar_names WHERE cache = ?1 AND name = ?2";

/// A NAR as Nix named it when it pushed it: after the hash of the compressed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarName {
    /// The name of the cache.
    pub cache: String,
    /// What it was called.
    pub name: NarFileName,
    /// Of the uncompressed NAR.
    pub nar_hash: Sha256,
    /// How it was compressed, as its narinfo said.
    pub compression: String,
}

impl StateDb {
    /// Notes names of NARs, all of them in one transaction.
    pub fn record_nar_names(&self, names: &[NarName]) -> Result<(), StateError> {
        self.record_nar_names_of(names, MAX_NAMES)
    }

    pub(super) fn record_nar_names_of(
        &self,
        names: &[NarName],
        most: i64,
    ) -> Result<(), StateError> {
        self.write(|connection| {
            let mut insert = connection.prepare_cached(NAME)?;
            for NarName { cache, name, nar_hash, compression } in names {
                insert.execute(params![
                    cache,
                    name.file_name(),
                    nar_hash.to_nix32(),
                    compression
                ])?;
            }
            connection.prepare_cached(FORGET)?.execute([most]).map(drop)
        })
    }

    /// The NAR that was pushed under a name, and how it was compressed then.
    pub fn nar_of_name(
        &self,
        cache: &str,
        name: NarFileName,
    ) -> Result<Option<(Sha256, String)>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(FIND)?;
            let row = select.query_row(params![cache, name.file_name()], |row| {
                let hash: String = row.get(0)?;
                let hash = Sha256::from_nix32(&hash).ok_or_else(|| bad(0, "a NarHash"))?;
                Ok((hash, row.get(1)?))
            });
            row.optional()
        })
    }
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    [NAME, FORGET, FIND].into_iter().try_for_each(|sql| connection.prepare(sql).map(drop))
}
