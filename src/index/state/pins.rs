//! Pins: named roots of a cache. Each time a name is pinned again, that is a revision of it with the paths
//! that it names then; how many of them stay is the pin's own to say.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StateDb, StateError, bad};
use crate::nix::store_path::StorePathHash;

const INSERT: &str = "INSERT INTO pins (cache, name, release, created, keep_revisions, keep_days) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
const OF_RELEASE: &str = "SELECT release FROM pins WHERE cache = ?1 AND name = ?2";
const KEEP: &str =
    "UPDATE pins SET keep_revisions = ?3, keep_days = ?4 WHERE cache = ?1 AND name = ?2";
const NEXT: &str =
    "SELECT coalesce(max(number), 0) + 1 FROM pin_revisions WHERE cache = ?1 AND name = ?2";
const INSERT_REVISION: &str = "INSERT INTO pin_revisions (cache, name, number, created, pinner) \
                               VALUES (?1, ?2, ?3, ?4, ?5)";
const INSERT_PATH: &str = "INSERT OR IGNORE INTO pinned_paths (cache, name, number, hash) \
                           VALUES (?1, ?2, ?3, ?4)";
/// Those of which there are as many newer ones as the pin keeps, or that are older than it keeps them.
const END: &str = "DELETE FROM pin_revisions WHERE (cache, name, number) IN ( \
    SELECT revisions.cache, revisions.name, revisions.number \
    FROM pin_revisions revisions JOIN pins USING (cache, name) \
    WHERE cache = ?1 AND ( \
        revisions.created < ?2 - pins.keep_days * 86400 \
        OR (SELECT count(*) FROM pin_revisions newer \
            WHERE newer.cache = revisions.cache AND newer.name = revisions.name \
            AND newer.number > revisions.number) >= pins.keep_revisions))";
const END_PATHS: &str = "DELETE FROM pinned_paths WHERE cache = ?1 AND NOT EXISTS ( \
    SELECT 1 FROM pin_revisions revisions WHERE revisions.cache = pinned_paths.cache \
    AND revisions.name = pinned_paths.name AND revisions.number = pinned_paths.number)";
const END_PINS: &str = "DELETE FROM pins WHERE cache = ?1 AND NOT EXISTS ( \
    SELECT 1 FROM pin_revisions revisions WHERE revisions.cache = pins.cache \
    AND revisions.name = pins.name)";
const ALL: &str = "SELECT name, release, created, keep_revisions, keep_days, \
    (SELECT count(*) FROM pin_revisions revisions \
     WHERE revisions.cache = pins.cache AND revisions.name = pins.name), \
    (SELECT count(DISTINCT hash) FROM pinned_paths paths \
     WHERE paths.cache = pins.cache AND paths.name = pins.name) \
    FROM pins WHERE cache = ?1 ORDER BY created, name";
const REVISIONS: &str = "SELECT number, created, pinner FROM pin_revisions \
                         WHERE cache = ?1 AND name = ?2 ORDER BY number DESC";
const PATHS: &str = "SELECT hash FROM pinned_paths \
                     WHERE cache = ?1 AND name = ?2 AND number = ?3 ORDER BY hash";
const CHANGES: &str = "SELECT count FROM pin_changes";
const COUNT: &str = "UPDATE pin_changes SET count = count + 1";
const ROOTS: &str = "SELECT DISTINCT hash FROM pinned_paths WHERE cache = ?1";
const NAMED: &str = "SELECT DISTINCT name, hash FROM pinned_paths WHERE cache = ?1";
const DELETE_PATHS: &str = "DELETE FROM pinned_paths WHERE cache = ?1 AND name = ?2";
const DELETE_REVISIONS: &str = "DELETE FROM pin_revisions WHERE cache = ?1 AND name = ?2";
const DELETE: &str = "DELETE FROM pins WHERE cache = ?1 AND name = ?2";

/// No name of a pin is longer, in bytes.
pub const MAX_PIN_NAME: usize = 200;

/// Whether a pin can be called so: letters, digits and - _ . + : @ /, as names of branches have them.
pub fn is_pin_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+:@/".contains(&byte);
    !name.is_empty() && name.len() <= MAX_PIN_NAME && name.bytes().all(legal)
}

/// Which revisions of a pin stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All of them.
    #[default]
    Forever,
    /// The newest so many.
    Revisions(u32),
    /// Each for so many days, the last one as well.
    Days(u32),
}

impl Keep {
    /// How many revisions stay and for how many days, where that is what is said.
    pub const fn revisions_and_days(self) -> (Option<u32>, Option<u32>) {
        match self {
            Self::Forever => (None, None),
            Self::Revisions(count) => (Some(count), None),
            Self::Days(days) => (None, Some(days)),
        }
    }
}

/// A pin, without its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// Unique in its cache.
    pub name: String,
    /// The release that made it, if one did.
    pub release: Option<String>,
    /// When it was first made, in seconds since 1970.
    pub created: i64,
    /// Which revisions stay.
    pub keep: Keep,
    /// How many revisions there are.
    pub revisions: u64,
    /// How many paths they name, each counted once.
    pub paths: u64,
}

/// What a pin named at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRevision {
    /// Counts up from 1.
    pub number: u64,
    /// When, in seconds since 1970.
    pub created: i64,
    /// Who pinned.
    pub pinner: String,
    /// What it names, by hash.
    pub paths: Vec<StorePathHash>,
}

/// What came of pinning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// There is a revision of this number now.
    Revision(u64),
    /// The name is that of a release's pin, which stays as it is.
    OfRelease,
}

/// A new revision of a pin.
#[derive(Clone, Copy, Debug)]
pub struct NewRevision<'a> {
    /// The cache.
    pub cache: &'a str,
    /// The pin.
    pub name: &'a str,
    /// What it is to name.
    pub paths: &'a [StorePathHash],
    /// Who pins.
    pub pinner: &'a str,
}

impl StateDb {
    /// Keeps the pin of a new release; `false` where the cache has one of that name, which stays as it is.
    pub fn add_pin(
        &self,
        revision: NewRevision<'_>,
        release: &str,
        now: i64,
    ) -> Result<bool, StateError> {
        self.write(|connection| {
            let NewRevision { cache, name, .. } = revision;
            let (count, days) = Keep::Forever.revisions_and_days();
            let added =
                connection.execute(INSERT, params![cache, name, release, now, count, days])?;
            if added == 0 {
                return Ok(false);
            }
            add_revision(connection, revision, now)?;
            Ok(true)
        })
    }

    /// Pins paths by a name, which is a new revision where it was pinned before. `keep` is what stays of it from
    /// now on; `None` leaves that as it is, and a new pin stays for ever.
    pub fn pin(
        &self,
        revision: NewRevision<'_>,
        keep: Option<Keep>,
        now: i64,
    ) -> Result<Pinned, StateError> {
        self.write(|connection| {
            let NewRevision { cache, name, .. } = revision;
            let (count, days) = keep.unwrap_or_default().revisions_and_days();
            connection.execute(INSERT, params![cache, name, None::<&str>, now, count, days])?;
            let release: Option<String> =
                connection.query_row(OF_RELEASE, params![cache, name], |row| row.get(0))?;
            if release.is_some() {
                return Ok(Pinned::OfRelease);
            }
            if keep.is_some() {
                connection.execute(KEEP, params![cache, name, count, days])?;
            }
            let number = add_revision(connection, revision, now)?;
            // What ends by time ends with a collection, which looks whether the clock can be believed.
            end(connection, cache, i64::MIN / 2)?;
            Ok(Pinned::Revision(number.unsigned_abs()))
        })
    }

    /// Lets go of the revisions of a cache that do not stay any more at `now`, in seconds since 1970, and of the
    /// pins that have none left.
    pub fn end_revisions(&self, cache: &str, now: i64) -> Result<(), StateError> {
        self.write(|connection| end(connection, cache, now))
    }

    /// The pins of a cache, oldest first.
    pub fn pins(&self, cache: &str) -> Result<Vec<PinRecord>, StateError> {
        self.read(|connection| {
            connection.prepare_cached(ALL)?.query_map([cache], read_pin)?.collect()
        })
    }

    /// The revisions of a pin, the newest first; none where there is no such pin.
    pub fn pin_revisions(&self, cache: &str, name: &str) -> Result<Vec<PinRevision>, StateError> {
        self.read(|connection| {
            // One state of all.
            let connection = connection.unchecked_transaction()?;
            let mut select = connection.prepare_cached(REVISIONS)?;
            let rows = select.query_map(params![cache, name], |row| {
                let number: i64 = row.get(0)?;
                let paths = hashes(&connection, PATHS, params![cache, name, number])?;
                Ok(PinRevision {
                    number: number.unsigned_abs(),
                    created: row.get(1)?,
                    pinner: row.get(2)?,
                    paths,
                })
            })?;
            rows.collect()
        })
    }

    /// All that the pins of a cache name, by hash.
    pub fn pinned_paths(&self, cache: &str) -> Result<Vec<StorePathHash>, StateError> {
        self.read(|connection| hashes(connection, ROOTS, [cache]))
    }

    /// All that the pins of a cache name, by hash, each with the name of the pin.
    pub fn pinned_by_name(&self, cache: &str) -> Result<Vec<(String, StorePathHash)>, StateError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(NAMED)?;
            let rows = select.query_map([cache], |row| Ok((row.get(0)?, read_hash(row, 1)?)))?;
            rows.collect()
        })
    }

    /// How often something was pinned, in any cache.
    pub fn pin_changes(&self) -> Result<i64, StateError> {
        self.read(|connection| connection.prepare_cached(CHANGES)?.query_row([], |row| row.get(0)))
    }

    /// The release whose pin this is; nothing where it is none's, or there is no such pin.
    pub fn release_of_pin(&self, cache: &str, name: &str) -> Result<Option<String>, StateError> {
        self.read(|connection| {
            let found: Option<Option<String>> = connection
                .query_row(OF_RELEASE, params![cache, name], |row| row.get(0))
                .optional()?;
            Ok(found.flatten())
        })
    }

    /// Removes a pin with all its revisions. Says whether there was one.
    pub fn remove_pin(&self, cache: &str, name: &str) -> Result<bool, StateError> {
        self.write(|connection| {
            connection.execute(DELETE_PATHS, params![cache, name])?;
            connection.execute(DELETE_REVISIONS, params![cache, name])?;
            Ok(connection.execute(DELETE, params![cache, name])? > 0)
        })
    }
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let all = [
        INSERT,
        OF_RELEASE,
        KEEP,
        NEXT,
        INSERT_REVISION,
        INSERT_PATH,
        END,
        END_PATHS,
        END_PINS,
        ALL,
        REVISIONS,
        PATHS,
        CHANGES,
        COUNT,
        ROOTS,
        NAMED,
        DELETE_PATHS,
        DELETE_REVISIONS,
        DELETE,
    ];
    all.into_iter().try_for_each(|statement| connection.prepare(statement).map(drop))
}

fn add_revision(
    connection: &Connection,
    revision: NewRevision<'_>,
    now: i64,
) -> rusqlite::Result<i64> {
    let NewRevision { cache, name, paths, pinner } = revision;
    let number: i64 = connection.query_row(NEXT, params![cache, name], |row| row.get(0))?;
    connection.execute(INSERT_REVISION, params![cache, name, number, now, pinner])?;
    connection.execute(COUNT, [])?;
    let mut insert = connection.prepare_cached(INSERT_PATH)?;
    for path in paths {
        insert.execute(params![cache, name, number, path.to_string()])?;
    }
    Ok(number)
}

fn end(connection: &Connection, cache: &str, now: i64) -> rusqlite::Result<()> {
    if connection.execute(END, params![cache, now])? > 0 {
        connection.execute(END_PATHS, [cache])?;
        connection.execute(END_PINS, [cache])?;
    }
    Ok(())
}

fn read_pin(row: &Row<'_>) -> rusqlite::Result<PinRecord> {
    let keep = match (row.get(3)?, row.get(4)?) {
        (Some(count), _) => Keep::Revisions(count),
        (None, Some(days)) => Keep::Days(days),
        (None, None) => Keep::Forever,
    };
    Ok(PinRecord {
        name: row.get(0)?,
        release: row.get(1)?,
        created: row.get(2)?,
        keep,
        revisions: row.get::<_, i64>(5)?.unsigned_abs(),
        paths: row.get::<_, i64>(6)?.unsigned_abs(),
    })
}

fn hashes(
    connection: &Connection,
    select: &str,
    of: impl rusqlite::Params,
) -> rusqlite::Result<Vec<StorePathHash>> {
    let mut select = connection.prepare_cached(select)?;
    let rows = select.query_map(of, |row| read_hash(row, 0))?;
    rows.collect()
}

fn read_hash(row: &Row<'_>, column: usize) -> rusqlite::Result<StorePathHash> {
    let hash = StorePathHash::parse(row.get_ref(column)?.as_str()?);
    hash.ok_or_else(|| bad(column, "the hash of a store path"))
}
