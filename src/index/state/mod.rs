//! The state database, `<data_dir>/state/state.sqlite`: tokens, who pushed what, which pushes
//! contradicted what was there, pins, and where banks were. Losing it loses no path.
//!
//! The server and the command line use it at the same time, so it is in WAL mode; every change is
//! synced before it is told. Each process has one connection that writes, one that reads, and one
//! that only notices that somebody wrote, cheaply enough to be asked at every request.
//!
//! A damaged database is set aside and begun anew by the server ([`StateDb::open_or_begin_anew`]),
//! never by the command line. One of a newer schema is left alone by both.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::bank::{BankError, publish::private};

mod jobs;
mod names;
mod pins;
mod places;
mod pushes;
mod schema;
#[cfg(test)]
mod tests;
mod tokens;
mod uses;
mod verification;

pub use jobs::{Job, JobState};
pub use names::NarName;
pub use pins::{Keep, MAX_PIN_NAME, NewRevision, PinRecord, PinRevision, Pinned, is_pin_name};
pub use pushes::{ConflictRecord, PushRecord};
pub use tokens::{Revoked, TokenRecord, Tokens};
pub use uses::Tombstone;
pub use verification::{FindingRecord, Verification};

/// The directory of the database in the data directory.
pub const STATE_DIRECTORY: &str = "state";
const FILE: &str = "state.sqlite";
/// What SQLite makes a database of.
const PAGE: u64 = 4096;
/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to let go of a database that another is just making.
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// The version of SQLite, which is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// The open database.
pub struct StateDb {
    file: PathBuf,
    inode: (u64, u64),
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    watch: Mutex<Connection>,
}

/// Why the state database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A later version of this program made it.
    #[error(
        "{} has schema {found}, and this version knows {known}: a newer snowbank made it. \
         Run that one, or move the file away and make the tokens again", file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It is not a database of ours, or not any more.
    #[error("{} is damaged ({why}); the server sets it aside when it starts", file.display())]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What was found.
        why: String,
    },
    /// Another file has its name since it was opened.
    #[error("{} was replaced while it was open; start the server again", .0.display())]
    Replaced(PathBuf),
    /// Another process writes, and does not end.
    #[error("{} was locked by another process for more than {PATIENCE:?}", .0.display())]
    Locked(PathBuf),
    /// Anything else that SQLite says.
    #[error("{}: {source}", file.display())]
    Sqlite {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Its files could not be made or set aside.
    #[error(transparent)]
    Files(#[from] BankError),
}

impl StateDb {
    /// Opens the database of a data directory, and makes it if there is none.
    pub fn open(data_dir: &Path) -> Result<Self, StateError> {
        let directory = data_dir.join(STATE_DIRECTORY);
        private::make_private_directory(&directory)?;
        let file = directory.join(FILE);
        private::make_private_file(&file)?;
        Self::open_file(file)
    }

    /// As [`Self::open`], but makes none: `None` where there is none.
    pub fn open_existing(data_dir: &Path) -> Result<Option<Self>, StateError> {
        let file = data_dir.join(STATE_DIRECTORY).join(FILE);
        // A directory that we may not look into is no missing database.
        match file.try_exists() {
            Ok(true) => Self::open_file(file).map(Some),
            Ok(false) => Ok(None),
            Err(source) => Err(BankError::Io { path: file, source }.into()),
        }
    }

    /// As [`Self::open`], but first reads the whole database, and sets a damaged one aside. Only for
    /// the server, at its start.
    pub fn open_or_begin_anew(data_dir: &Path) -> Result<Self, StateError> {
        let file = data_dir.join(STATE_DIRECTORY).join(FILE);
        match std::fs::metadata(&file) {
            Ok(found) if found.len() == 0 => {
                tracing::warn!(
                    "{} is empty: tokens must be made again, if there were any",
                    file.display()
                );
            }
            Ok(_) => {}
            // What is left of one that was being set aside belongs to no new database.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && file.parent().is_some_and(Path::exists) =>
            {
                private::set_database_aside(&file, &stamp())?;
            }
            Err(_) => {}
        }
        match Self::open(data_dir).and_then(Self::check) {
            Err(StateError::Damaged { file, why }) => {
                let aside = private::set_database_aside(&file, &stamp())?;
                tracing::error!(
                    "the state database was damaged ({why}) and lies at {} now: tokens must be made \
                     again with `snowbank token create`, and pins with `snowbank pin add`; who pushed \
                     what until now is not known any more. No path is lost: nothing is collected by \
                     itself until that file is removed",
                    aside.display()
                );
                Self::open(data_dir)
            }
            opened => opened,
        }
    }

    /// A database that was damaged and set aside, if one lies there still: what was pinned in it is not known.
    pub fn set_aside(&self) -> Result<Option<PathBuf>, StateError> {
        Ok(private::database_set_aside(&self.file)?)
    }

    /// Changes whenever anybody, in this process or another, has written. Takes microseconds and waits
    /// for nobody, so it may be asked on a thread that must not block.
    pub fn data_version(&self) -> Result<i64, StateError> {
        if inode(&self.file) != Some(self.inode) {
            return Err(StateError::Replaced(self.file.clone()));
        }
        let watch = lock(&self.watch);
        watch
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|source| error(&self.file, source))
    }

    fn open_file(file: PathBuf) -> Result<Self, StateError> {
        if std::fs::metadata(&file).is_ok_and(|found| (1..PAGE).contains(&found.len())) {
            // SQLite would take it for an empty one.
            return Err(StateError::Damaged { file, why: "it is cut short".into() });
        }
        let failed = |source| error(&file, source);
        let mut writer = connect(&file).map_err(failed)?;
        schema::migrate(&mut writer, &file, &schema::SCHEMAS)?;
        let (reader, watch) = (connect(&file).map_err(failed)?, connect(&file).map_err(failed)?);
        watch.busy_timeout(Duration::ZERO).map_err(failed)?;
        let prepared = pushes::prepare(&reader).and_then(|()| tokens::prepare(&reader));
        let prepared = prepared.and_then(|()| pins::prepare(&reader));
        let prepared = prepared.and_then(|()| names::prepare(&reader));
        let prepared = prepared.and_then(|()| uses::prepare(&reader));
        let prepared = prepared.and_then(|()| verification::prepare(&reader));
        prepared.and_then(|()| jobs::prepare(&reader)).map_err(failed)?;
        let Some(inode) = inode(&file) else { return Err(StateError::Replaced(file)) };
        let [writer, reader, watch] = [writer, reader, watch].map(Mutex::new);
        Ok(Self { file, inode, writer, reader, watch })
    }

    /// Reads every page.
    fn check(self) -> Result<Self, StateError> {
        let said = self.read(|connection| {
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        })?;
        if said != "ok" {
            return Err(StateError::Damaged { file: self.file, why: said.replace('\n', " ") });
        }
        Ok(self)
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        query(&lock(&self.reader)).map_err(|source| error(&self.file, source))
    }

    /// Runs `change` in a transaction of its own: all of it, durably, or nothing.
    fn write<T>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let mut writer = lock(&self.writer);
        let changed = writer.transaction_with_behavior(TransactionBehavior::Immediate).and_then(
            |transaction| {
                let changed = change(&transaction)?;
                transaction.commit()?;
                Ok(changed)
            },
        );
        changed.map_err(|source| error(&self.file, source))
    }
}

/// A connection to a file that is there.
///
/// Two that turn a new database to WAL mode at once are in each other's way, and SQLite says so without
/// the wait of `busy_timeout`, which could only end in a deadlock: each has to let go and begin again.
fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect_once(file) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(BETWEEN_TRIES);
            }
            result => return result,
        }
    }
}

/// In WAL mode `synchronous=FULL` syncs at every commit.
fn connect_once(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn error(file: &Path, source: rusqlite::Error) -> StateError {
    let file = file.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StateError::Locked(file),
        // "Unknown" is what SQLite says of tables and columns that are not there.
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
            StateError::Damaged { file, why: source.to_string() }
        }
        // A row does not hold what we write.
        None if is_about_a_value(&source) => StateError::Damaged { file, why: source.to_string() },
        _ => StateError::Sqlite { file, source },
    }
}

fn is_about_a_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    )
}

/// A value of a row that does not hold what we write.
fn bad(column: usize, why: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
}

fn inode(file: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(file).ok().map(|found| (found.dev(), found.ino()))
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ").to_string()
}

/// A poisoned lock here holds a connection whose transaction was rolled back.
fn lock(mutex: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
