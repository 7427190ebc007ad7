//! Nix's own database, `db.sqlite`, read live and never written.
//!
//! Opened read-only but not `immutable`, so that what another process writes is seen at once. A
//! change is noticed by `PRAGMA data_version` on a connection kept for that, and by the file's
//! inode. Every call may block and so belongs on a blocking thread; none waits for a lock longer
//! than the deadline that the database was opened with.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::index::presence::Known;
use crate::nix::hash::Sha256;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::Signature;
use crate::nix::store_path::{StoreDir, StorePathHash};
use crate::source::search::Wanted;

/// The database schema of every Nix since 2.0, as its file `schema` says.
const SCHEMA: u32 = 10;
/// Connections kept open between calls.
const IDLE_CONNECTIONS: usize = 8;

const FIND: &str = "SELECT id, path, hash, deriver, narSize, sigs, ca FROM ValidPaths \
                    WHERE path >= ?1 LIMIT 1";
const REFERENCES: &str = "SELECT path FROM Refs JOIN ValidPaths ON reference = id \
                          WHERE referrer = ?1";
const ROW: &str = "SELECT id, path, hash, deriver, narSize, sigs, ca FROM ValidPaths WHERE id = ?1";
const REFERENCE_IDS: &str = "SELECT reference FROM Refs WHERE referrer = ?1";
const SCAN: &str = "SELECT path, hash FROM ValidPaths";
const FIND_NAR: &str = "SELECT path FROM ValidPaths WHERE hash = ?1 LIMIT 1";
const NAMED: &str = "SELECT path FROM ValidPaths WHERE instr(substr(path, ?1), ?2) > 0 LIMIT ?3";
const DERIVED: &str = "SELECT path FROM ValidPaths WHERE deriver = ?1 LIMIT ?2";

/// The database of one store.
pub struct Database {
    file: PathBuf,
    schema_file: PathBuf,
    store_dir: StoreDir,
    deadline: Duration,
    idle: Mutex<Vec<Connection>>,
    watch: Mutex<Option<Watch>>,
}

/// The connection that notices changes.
struct Watch {
    connection: Connection,
    inode: (u64, u64),
    data_version: i64,
}

/// Why the database could not answer. None of these means that a path is not there.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is no such file.
    #[error("there is no Nix database at {0}")]
    Missing(PathBuf),
    /// Somebody held a lock for longer than the deadline.
    #[error("the Nix database was locked by another process for more than {0:?}")]
    Locked(Duration),
    /// Another version of Nix's schema, or no Nix database at all.
    #[error("the Nix database has a schema that is not known: {0}")]
    Schema(String),
    /// A row that does not hold what Nix writes.
    #[error("the Nix database has a row for {path} that Nix would not write: {why}")]
    Row {
        /// Which path, as far as it is known.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else.
    #[error("the Nix database: {0}")]
    Sqlite(rusqlite::Error),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Database {
    /// The database in `directory`, as in `/nix/var/nix/db`. Opened when it is first asked.
    pub fn new(directory: &Path, store_dir: StoreDir, deadline: Duration) -> Self {
        Self {
            file: directory.join("db.sqlite"),
            schema_file: directory.join("schema"),
            store_dir,
            deadline,
            idle: Mutex::default(),
            watch: Mutex::default(),
        }
    }

    /// Whether anything was written since the last call; the first call says yes.
    pub fn has_changed(&self) -> Result<bool, DatabaseError> {
        let mut watch = lock(&self.watch);
        let inode = self.inode().inspect_err(|_| {
            // What is still open is of a file that is not the database any more.
            *watch = None;
            lock(&self.idle).clear();
        })?;
        if let Some(watch) = watch.as_mut().filter(|watch| watch.inode == inode) {
            let now = data_version(&watch.connection).map_err(|error| self.sqlite(error))?;
            return Ok(std::mem::replace(&mut watch.data_version, now) != now);
        }
        // Another file is another database: whatever was open is of the old one.
        lock(&self.idle).clear();
        *watch = None;
        let connection = self.open()?;
        let data_version = data_version(&connection).map_err(|error| self.sqlite(error))?;
        *watch = Some(Watch { connection, inode, data_version });
        Ok(true)
    }

    /// Every valid path, with its NarHash.
    pub fn scan(&self) -> Result<Known, DatabaseError> {
        self.read(|connection| {
            let (mut paths, mut nars) = (Vec::new(), HashMap::new());
            let mut statement = connection.prepare_cached(SCAN)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (path, hash) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
                // A row that does not parse is reported when its path is asked for.
                let Ok(path) = self.store_dir.parse_path(path) else { continue };
                paths.push(path.hash());
                if let Ok(nar_hash) = Sha256::parse(hash) {
                    nars.insert(nar_hash, path.hash());
                }
            }
            Ok(Known { paths: paths.into(), nars })
        })
    }

    /// A valid path by its hash; `None` where there is none.
    pub fn find(&self, hash: StorePathHash) -> Result<Option<PathInfo>, DatabaseError> {
        let prefix = format!("{}/{hash}", self.store_dir);
        let found = self.read(|connection| {
            let mut statement = connection.prepare_cached(FIND)?;
            let row = statement.query_row([&prefix], ValidPathRow::read).optional()?;
            let Some(row) = row.filter(|row| row.path.starts_with(&prefix)) else {
                return Ok(None);
            };
            let references = strings(connection.prepare_cached(REFERENCES)?, row.id)?;
            Ok(Some((row, references)))
        })?;
        found.map(|(row, references)| row.check(&self.store_dir, &references)).transpose()
    }

    /// The closures of `roots`, as one state of the database has them, references before what refers
    /// to them. A root that is not valid is given back in the second list.
    pub fn closure(
        &self,
        roots: &[StorePathHash],
    ) -> Result<(Vec<PathInfo>, Vec<StorePathHash>), DatabaseError> {
        let (rows, invalid) = self.read(|connection| {
            let mut graph = Graph::default();
            let mut invalid = Vec::new();
            let mut find = connection.prepare_cached(FIND)?;
            for hash in roots {
                let prefix = format!("{}/{hash}", self.store_dir);
                let row = find.query_row([&prefix], ValidPathRow::read).optional()?;
                match row.filter(|row| row.path.starts_with(&prefix)) {
                    Some(row) => graph.add(row),
                    None => invalid.push(*hash),
                }
            }
            let mut row = connection.prepare_cached(ROW)?;
            let mut references = connection.prepare_cached(REFERENCE_IDS)?;
            while let Some(id) = graph.waiting.pop() {
                let ids: Vec<i64> =
                    references.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
                for id in &ids {
                    if !graph.rows.contains_key(id) {
                        graph.add(row.query_row([id], ValidPathRow::read)?);
                    }
                }
                graph.references.insert(id, ids);
            }
            Ok((graph.in_order(), invalid))
        })?;
        let checked =
            rows.into_iter().map(|(row, references)| row.check(&self.store_dir, &references));
        Ok((checked.collect::<Result<_, _>>()?, invalid))
    }

    /// Which valid path has this NarHash. Reads the whole table, which has no index on
    /// the hash.
    pub fn find_nar(&self, nar: Sha256) -> Result<Option<StorePathHash>, DatabaseError> {
        let text = format!("sha256:{}", data_encoding::HEXLOWER.encode(&nar.0));
        let path = self.read(|connection| {
            let mut statement = connection.prepare_cached(FIND_NAR)?;
            statement.query_row([text], |row| row.get::<_, String>(0)).optional()
        })?;
        Ok(path.and_then(|path| self.store_dir.parse_path(&path).ok()).map(|path| path.hash()))
    }

    /// Valid paths that are wanted; `most` of them. Reads the whole table.
    pub fn search(&self, wanted: &Wanted, most: u32) -> Result<Vec<StorePathHash>, DatabaseError> {
        let paths: Vec<String> = self.read(|connection| match wanted {
            Wanted::Name(part) => {
                // SQLite counts from 1: after the directory, its slash, the hash and its dash.
                let name = i64::try_from(self.store_dir.as_str().len()).unwrap_or(0) + 35;
                let mut select = connection.prepare_cached(NAMED)?;
                select.query_map(params![name, part, most], |row| row.get(0))?.collect()
            }
            Wanted::Deriver(derivation) => {
                let mut select = connection.prepare_cached(DERIVED)?;
                let derivation = self.store_dir.join(derivation);
                select.query_map(params![derivation, most], |row| row.get(0))?.collect()
            }
        })?;
        let paths = paths.iter().filter_map(|path| self.store_dir.parse_path(path).ok());
        Ok(paths.map(|path| path.hash()).collect())
    }

    /// Runs `query` on a connection, in one read transaction, so that its statements see one state.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let result = connection.unchecked_transaction().and_then(|transaction| {
            let answer = query(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        });
        // A connection that failed may be broken for good: let it go.
        let answer = result.map_err(|error| self.sqlite(error))?;
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
        Ok(answer)
    }

    fn open(&self) -> Result<Connection, DatabaseError> {
        self.inode()?;
        self.check_schema()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.file, flags).map_err(|error| self.sqlite(error))?;
        connection.busy_timeout(self.deadline).map_err(|error| self.sqlite(error))?;
        for statement in [FIND, REFERENCES, ROW, REFERENCE_IDS, SCAN, FIND_NAR, NAMED, DERIVED] {
            connection.prepare_cached(statement).map_err(|error| self.sqlite(error))?;
        }
        Ok(connection)
    }

    fn check_schema(&self) -> Result<(), DatabaseError> {
        match std::fs::read_to_string(&self.schema_file) {
            Ok(text) if u32::from_str(text.trim()) == Ok(SCHEMA) => Ok(()),
            Ok(text) => Err(DatabaseError::Schema(format!(
                "version {:?} where {SCHEMA} was expected",
                text.trim().chars().take(20).collect::<String>()
            ))),
            // Stores made by other tools have none; the statements are checked all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DatabaseError::Io { path: self.schema_file.clone(), source }),
        }
    }

    fn inode(&self) -> Result<(u64, u64), DatabaseError> {
        match std::fs::metadata(&self.file) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(DatabaseError::Missing(self.file.clone()))
            }
            Err(source) => Err(DatabaseError::Io { path: self.file.clone(), source }),
        }
    }

    fn sqlite(&self, error: rusqlite::Error) -> DatabaseError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                DatabaseError::Locked(self.deadline)
            }
            Some(ErrorCode::NotADatabase) => DatabaseError::Schema("not a database".into()),
            Some(ErrorCode::Unknown) => DatabaseError::Schema(error.to_string()),
            _ => DatabaseError::Sqlite(error),
        }
    }
}

/// A poisoned lock here holds connections that are whole: they are only moved.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn strings(mut statement: CachedStatement<'_>, id: i64) -> rusqlite::Result<Vec<String>> {
    statement.query_map([id], |row| row.get(0))?.collect()
}

/// A part of the graph of references, by the ids of the rows.
#[derive(Default)]
struct Graph {
    rows: HashMap<i64, ValidPathRow>,
    references: HashMap<i64, Vec<i64>>,
    /// Whose references have not been looked up.
    waiting: Vec<i64>,
    /// In the order in which they were found, so that the same graph gives the same order.
    found: Vec<i64>,
}

impl Graph {
    fn add(&mut self, row: ValidPathRow) {
        let id = row.id;
        if self.rows.insert(id, row).is_none() {
            self.waiting.push(id);
            self.found.push(id);
        }
    }

    /// The rows with their references, each after those that it refers to.
    fn in_order(mut self) -> Vec<(ValidPathRow, Vec<String>)> {
        let names = |ids: &[i64]| -> Vec<String> {
            ids.iter().filter_map(|id| Some(self.rows.get(id)?.path.clone())).collect()
        };
        let mut done = HashSet::new();
        let mut order = Vec::with_capacity(self.found.len());
        // A stack of our own: a chain of references may be longer than the thread's.
        let mut stack: Vec<(i64, usize)> = Vec::new();
        for root in &self.found {
            if done.insert(*root) {
                stack.push((*root, 0));
            }
            while let Some((id, position)) = stack.last_mut() {
                let next = self.references.get(id).and_then(|ids| ids.get(*position)).copied();
                *position += 1;
                match next {
                    Some(next) if done.insert(next) => stack.push((next, 0)),
                    // Itself, or one that is done; Nix has no other cycles.
                    Some(_) => {}
                    None => {
                        order.push(*id);
                        stack.pop();
                    }
                }
            }
        }
        let references: Vec<Vec<String>> = order
            .iter()
            .map(|id| names(self.references.get(id).map_or(&[][..], Vec::as_slice)))
            .collect();
        let rows = order.iter().filter_map(|id| self.rows.remove(id));
        rows.zip(references).collect()
    }
}

/// A row as it stands.
struct ValidPathRow {
    id: i64,
    path: String,
    hash: String,
    deriver: Option<String>,
    nar_size: Option<i64>,
    signatures: Option<String>,
    ca: Option<String>,
}

impl ValidPathRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            path: row.get(1)?,
            hash: row.get(2)?,
            deriver: row.get(3)?,
            nar_size: row.get(4)?,
            signatures: row.get(5)?,
            ca: row.get(6)?,
        })
    }

    fn check(self, dir: &StoreDir, references: &[String]) -> Result<PathInfo, DatabaseError> {
        let bad = |why: String| DatabaseError::Row { path: self.path.clone(), why };
        let path = dir.parse_path(&self.path).map_err(|error| bad(error.to_string()))?;
        let nar_hash = Sha256::parse(&self.hash).map_err(|error| bad(error.to_string()))?;
        let nar_size = self.nar_size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        if nar_size == 0 {
            return Err(bad("it has no narSize".into()));
        }
        let mut references = references
            .iter()
            .map(|reference| dir.parse_path(reference).map_err(|error| bad(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        references.sort_unstable();
        let signatures = parse_signatures(self.signatures.as_deref());
        let deriver = self.deriver.as_deref().and_then(|deriver| dir.parse_path(deriver).ok());
        let ca = self.ca.clone().filter(|ca| !ca.is_empty());
        Ok(PathInfo { path, nar_hash, nar_size, references, deriver, signatures, ca })
    }
}

/// The signatures of a row, separated by spaces; what is none is left out, as Nix does.
pub(super) fn parse_signatures(text: Option<&str>) -> Vec<Signature> {
    text.unwrap_or("").split(' ').filter_map(|text| Signature::parse(text).ok()).collect()
}
