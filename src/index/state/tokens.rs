//! Tokens as they are kept: without their secrets.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StateDb, StateError, bad};

const INSERT: &str = "INSERT INTO tokens (id, secret_hash, name, push, pull, caches, created, \
                      expires, revoked, pin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const ALL: &str = "SELECT id, secret_hash, name, push, pull, caches, created, expires, revoked, \
                   pin FROM tokens ORDER BY created, id";
const REVOKED: &str = "SELECT revoked FROM tokens WHERE id = ?1";
const REVOKE: &str = "UPDATE tokens SET revoked = ?2 WHERE id = ?1";
const CHANGES: &str = "SELECT count FROM token_changes";
const COUNT: &str = "UPDATE token_changes SET count = count + 1";

/// A token. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// What it is called in lists; not secret.
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// For people: whose it is.
    pub name: String,
    /// Whether it may push.
    pub push: bool,
    /// Whether it may read private caches.
    pub pull: bool,
    /// Whether it may pin.
    pub pin: bool,
    /// The caches that it is for; `None` is all.
    pub caches: Option<Vec<String>>,
    /// When it was made.
    pub created: i64,
    /// From when on it is good for nothing.
    pub expires: Option<i64>,
    /// When it was revoked.
    pub revoked: Option<i64>,
}

/// All tokens, and how often they had changed.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Counts changes; see [`StateDb::token_changes`].
    pub changes: i64,
    /// Oldest first, revoked ones among them.
    pub all: Vec<TokenRecord>,
}

/// What came of revoking a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is revoked now.
    Now,
    /// It was revoked before.
    Before,
    /// There is no such token.
    Unknown,
}

impl StateDb {
    /// Keeps a new token.
    pub fn add_token(&self, token: &TokenRecord) -> Result<(), StateError> {
        let caches = token.caches.as_ref().map(|caches| serde_json::json!(caches).to_string());
        self.write(|connection| {
            let (hash, times) = (token.secret_hash, (token.created, token.expires, token.revoked));
            connection.prepare_cached(INSERT)?.execute(params![
                token.id, hash, token.name, token.push, token.pull, caches, times.0, times.1,
                times.2, token.pin
            ])?;
            connection.execute(COUNT, []).map(drop)
        })
    }

    /// Every token.
    pub fn tokens(&self) -> Result<Tokens, StateError> {
        self.read(|connection| {
            // One state of both.
            let connection = connection.unchecked_transaction()?;
            let changes = connection.query_row(CHANGES, [], |row| row.get(0))?;
            let all =
                connection.prepare_cached(ALL)?.query_map([], read)?.collect::<Result<_, _>>()?;
            Ok(Tokens { changes, all })
        })
    }

    /// How often tokens were made or revoked.
    pub fn token_changes(&self) -> Result<i64, StateError> {
        self.read(|connection| connection.prepare_cached(CHANGES)?.query_row([], |row| row.get(0)))
    }

    /// Revokes a token, at the time `at`.
    pub fn revoke_token(&self, id: &str, at: i64) -> Result<Revoked, StateError> {
        self.write(|connection| {
            let found = connection.query_row(REVOKED, [id], |row| row.get(0)).optional()?;
            Ok(match found {
                None => Revoked::Unknown,
                Some(Some::<i64>(_)) => Revoked::Before,
                Some(None) => {
                    connection.execute(REVOKE, params![id, at])?;
                    connection.execute(COUNT, [])?;
                    Revoked::Now
                }
            })
        })
    }
}

/// Fails where a table is not what this version reads.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    for statement in [INSERT, ALL, REVOKED, REVOKE, CHANGES, COUNT] {
        connection.prepare(statement)?;
    }
    // A database without this row would have changes go unnoticed.
    connection.query_row(CHANGES, [], |row| row.get::<_, i64>(0)).map(drop).map_err(|error| {
        match error {
            rusqlite::Error::QueryReturnedNoRows => bad(0, "token_changes is empty"),
            other => other,
        }
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    let caches = row.get::<_, Option<String>>(5)?;
    let caches = caches.map(|text| serde_json::from_str(&text)).transpose();
    Ok(TokenRecord {
        id: row.get(0)?,
        secret_hash: row.get(1)?,
        name: row.get(2)?,
        push: row.get(3)?,
        pull: row.get(4)?,
        pin: row.get(9)?,
        caches: caches.map_err(|_| bad(5, "not a list of caches"))?,
        created: row.get(6)?,
        expires: row.get(7)?,
        revoked: row.get(8)?,
    })
}
