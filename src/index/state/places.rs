//! Where banks were, and whether a file system of their own was mounted there.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{OptionalExtension, params};

use super::{StateDb, StateError};

const NOTE: &str = "INSERT INTO places (directory, mounted, seen) VALUES (?1, ?2, ?3) \
                    ON CONFLICT (directory) DO UPDATE SET mounted = ?2, seen = ?3";
const FIND: &str = "SELECT mounted FROM places WHERE directory = ?1";
const FORGET: &str = "DELETE FROM places WHERE directory = ?1";

impl StateDb {
    /// Notes that a bank is at `directory`, at `now` (seconds since 1970), and whether it is where a
    /// file system of its own is mounted.
    pub fn note_place(&self, directory: &Path, mounted: bool, now: i64) -> Result<(), StateError> {
        self.write(|connection| {
            connection.execute(NOTE, params![key(directory), mounted, now]).map(drop)
        })
    }

    /// Whether a file system of its own was mounted at `directory` when a bank was last seen there;
    /// `None` where none was ever seen.
    pub fn place(&self, directory: &Path) -> Result<Option<bool>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(FIND)?;
            select.query_row([key(directory)], |row| row.get(0)).optional()
        })
    }

    /// Forgets that a bank was at `directory`. Says whether one was.
    pub fn forget_place(&self, directory: &Path) -> Result<bool, StateError> {
        self.write(|connection| Ok(connection.execute(FORGET, [key(directory)])? > 0))
    }
}

/// Directories are bytes, and the database holds text: what is not UTF-8 is escaped.
fn key(directory: &Path) -> String {
    directory.as_os_str().as_bytes().escape_ascii().to_string()
}
