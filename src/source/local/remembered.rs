//! What a Nix on this machine remembers of caches: its own database `binary-cache-v6.sqlite` (of another number in
//! other versions) in its cache directory, read and never written (`nar-info-disk-cache.cc`).
//!
//! A path that was not there is remembered for an hour by default, one that was for 30 days: until then the cache is
//! not asked again, whatever it has meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::nix::store_path::StorePathHash;

const REMEMBERED: &str = "SELECT BinaryCaches.url, NARs.timestamp, NARs.present, NARs.url \
                          FROM NARs JOIN BinaryCaches ON NARs.cache = BinaryCaches.id \
                          WHERE NARs.hashPart = ?1 ORDER BY BinaryCaches.url";
/// How long a Nix that writes may be waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is remembered of a path in one cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The cache, as it was configured.
    pub cache: String,
    /// When it was asked, in seconds since 1970.
    pub at: i64,
    /// The URL of the NAR, relative to the cache; nothing where the path was not there.
    pub nar: Option<String>,
}

/// The memory cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", file.display())]
pub struct RememberedError {
    /// The database.
    pub file: PathBuf,
    /// What SQLite said.
    source: rusqlite::Error,
}

/// The databases in a cache directory, such as `~/.cache/nix`, the newest version first. Nix reads none but that of
/// its own version.
pub fn databases(directory: &Path) -> Vec<PathBuf> {
    let version = |path: &Path| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("binary-cache-v")?.strip_suffix(".sqlite")?.parse().ok()
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<_> = entries
        .filter_map(|entry| version(&entry.path()).map(|version| (version, entry.path())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// What a database has of a path, by cache.
pub fn remembered(file: &Path, hash: StorePathHash) -> Result<Vec<Remembered>, RememberedError> {
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(PATIENCE)?;
        let mut select = connection.prepare(REMEMBERED)?;
        let rows = select.query_map([hash.to_string()], |row| {
            let is_there: bool = row.get(2)?;
            let nar: Option<String> = row.get(3)?;
            let nar = is_there.then(|| nar.unwrap_or_default());
            Ok(Remembered { cache: row.get(0)?, at: row.get(1)?, nar })
        })?;
        rows.collect::<Result<_, _>>()
    };
    read().map_err(|source| RememberedError { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_are_found_by_their_versions_and_nothing_else_is() {
        let own = tempfile::tempdir().unwrap();
        for name in [
            "binary-cache-v6.sqlite",
            "binary-cache-v10.sqlite",
            "binary-cache-v7.sqlite-journal",
            "binary-cache-vx.sqlite",
            "fetcher-cache-v3.sqlite",
        ] {
            std::fs::write(own.path().join(name), "").unwrap();
        }
        let found = databases(own.path());
        let names: Vec<_> =
            found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["binary-cache-v10.sqlite", "binary-cache-v6.sqlite"]);
        assert!(databases(&own.path().join("absent")).is_empty());
    }

    #[test]
    fn what_is_no_database_is_an_error_that_names_it() {
        let own = tempfile::tempdir().unwrap();
        let file = own.path().join("binary-cache-v6.sqlite");
        std::fs::write(&file, "nothing of the kind".repeat(99)).unwrap();
        let error = remembered(&file, StorePathHash::from_bytes([0; 20])).unwrap_err();
        assert!(error.to_string().contains("binary-cache-v6.sqlite"), "{error}");
    }
}
