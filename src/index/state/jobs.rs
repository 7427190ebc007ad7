//! What the command line asks of a server that runs on the same data directory, and what the server says of it.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StateDb, StateError};

/// Jobs that have ended are kept this long, in seconds.
const KEPT: i64 = 3600;

const ASK: &str = "INSERT INTO jobs (cache, what, asked) VALUES (?1, ?2, ?3) RETURNING number";
const WITHDRAW: &str = "DELETE FROM jobs WHERE number = ?1 AND taken IS NULL";
const TAKE: &str = "UPDATE jobs SET taken = ?1 WHERE number = \
                    (SELECT min(number) FROM jobs WHERE taken IS NULL) \
                    RETURNING number, cache, what";
const SAY: &str = "UPDATE jobs SET said = ?2 WHERE number = ?1 AND ended IS NULL";
const END: &str = "UPDATE jobs SET said = ?2, ended = ?3 WHERE number = ?1";
const STATE: &str = "SELECT taken IS NOT NULL, ended IS NOT NULL, said FROM jobs WHERE number = ?1";
/// What a server took and did not end before it ended itself is nobody's any more.
const CLEAR: &str = "DELETE FROM jobs WHERE ended < ?1 OR (taken IS NOT NULL AND ended IS NULL)";

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which one.
    pub number: i64,
    /// Of which cache.
    pub cache: String,
    /// What, in JSON; the state database does not read it.
    pub what: String,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    /// Whether a server has begun it.
    pub is_taken: bool,
    /// Whether nothing more comes.
    pub has_ended: bool,
    /// What was said of it last, in JSON.
    pub said: Option<String>,
}

impl StateDb {
    /// Asks for something, at `now` in seconds since 1970. Says the number of the job.
    pub fn ask(&self, cache: &str, what: &str, now: i64) -> Result<i64, StateError> {
        self.write(|connection| {
            connection.query_row(ASK, params![cache, what, now], |row| row.get(0))
        })
    }

    /// Does not want a job any more that nobody has taken. Says whether nobody had.
    pub fn withdraw(&self, number: i64) -> Result<bool, StateError> {
        self.write(|connection| Ok(connection.execute(WITHDRAW, [number])? > 0))
    }

    /// Takes the job that was asked for first.
    pub fn take_job(&self, now: i64) -> Result<Option<Job>, StateError> {
        self.write(|connection| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Job { number: row.get(0)?, cache: row.get(1)?, what: row.get(2)? })
            };
            connection.query_row(TAKE, [now], read).optional()
        })
    }

    /// Says how far a job is.
    pub fn say(&self, number: i64, said: &str) -> Result<(), StateError> {
        self.write(|connection| connection.execute(SAY, params![number, said]).map(drop))
    }

    /// Says what came of a job, at `now`.
    pub fn end_job(&self, number: i64, said: &str, now: i64) -> Result<(), StateError> {
        self.write(|connection| connection.execute(END, params![number, said, now]).map(drop))
    }

    /// How far a job is; nothing where it is forgotten.
    pub fn job(&self, number: i64) -> Result<Option<JobState>, StateError> {
        self.read(|connection| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(JobState { is_taken: row.get(0)?, has_ended: row.get(1)?, said: row.get(2)? })
            };
            connection.query_row(STATE, [number], read).optional()
        })
    }

    /// Forgets jobs that ended long ago, and those of a server that ended before them. For a server's start.
    pub fn clear_jobs(&self, now: i64) -> Result<(), StateError> {
        self.write(|connection| connection.execute(CLEAR, [now - KEPT]).map(drop))
    }
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let all = [ASK, WITHDRAW, TAKE, SAY, END, STATE, CLEAR];
    all.into_iter().try_for_each(|statement| connection.prepare(statement).map(drop))
}
