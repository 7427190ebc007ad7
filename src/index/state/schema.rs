//! The tables, and how a database of an earlier version gets them.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{StateError, error};

/// What leads from each schema to the next, from an empty database on. What stands here was released
/// and is never changed; a new schema is a new entry.
pub(super) const SCHEMAS: [&str; 5] = [FIRST, SECOND, THIRD, FOURTH, FIFTH];

const FIRST: &str = "
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    name TEXT NOT NULL,
    push INTEGER NOT NULL,
    pull INTEGER NOT NULL,
    caches TEXT,              -- JSON, a list of names; NULL is every cache
    created INTEGER NOT NULL, -- seconds since 1970, as all times here
    expires INTEGER,
    revoked INTEGER
) STRICT, WITHOUT ROWID;

-- Counts the changes of tokens, so that a push does not have them all read again.
CREATE TABLE token_changes (count INTEGER NOT NULL) STRICT;
INSERT INTO token_changes VALUES (0);

CREATE TABLE pushes (
    cache TEXT NOT NULL,
    hash TEXT NOT NULL,
    path TEXT NOT NULL,
    nar_hash TEXT NOT NULL,
    nar_size INTEGER NOT NULL,
    pusher TEXT NOT NULL,
    token TEXT,
    address TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX pushes_of_path ON pushes (hash);

-- The names that Nix gave to NARs it pushed, and that it remembers for 30 days.
CREATE TABLE nar_names (
    cache TEXT NOT NULL,
    name TEXT NOT NULL,
    nar_hash TEXT NOT NULL,
    compression TEXT NOT NULL,
    PRIMARY KEY (cache, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE conflicts (
    number INTEGER PRIMARY KEY,
    cache TEXT NOT NULL,
    hash TEXT NOT NULL,
    kept TEXT NOT NULL,
    refused TEXT NOT NULL,
    pusher TEXT NOT NULL,
    token TEXT,
    address TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX conflicts_of_path ON conflicts (hash);
";

const SECOND: &str = "
-- The directories that were served, so that an empty one is not taken for a new bank when its file
-- system is not mounted.
CREATE TABLE places (
    directory TEXT PRIMARY KEY,
    mounted INTEGER NOT NULL, -- whether a file system of its own was mounted there
    seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Named roots of a cache: what they name stays, with all that it refers to.
CREATE TABLE pins (
    cache TEXT NOT NULL,
    name TEXT NOT NULL,
    release TEXT,             -- the snapshot of the release that made it
    created INTEGER NOT NULL,
    PRIMARY KEY (cache, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE pinned_paths (
    cache TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cache, name, hash),
    FOREIGN KEY (cache, name) REFERENCES pins (cache, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
";

const THIRD: &str = "
-- Which revisions of a pin stay; neither is all of them.
ALTER TABLE pins ADD COLUMN keep_revisions INTEGER;
ALTER TABLE pins ADD COLUMN keep_days INTEGER;

CREATE TABLE pin_revisions (
    cache TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,  -- counts up from 1
    created INTEGER NOT NULL,
    pinner TEXT NOT NULL,
    PRIMARY KEY (cache, name, number)
) STRICT, WITHOUT ROWID;
INSERT INTO pin_revisions SELECT cache, name, 1, created, 'snowbank release' FROM pins;

-- Counts what is pinned, so that a collection sees it at once.
CREATE TABLE pin_changes (count INTEGER NOT NULL) STRICT;
INSERT INTO pin_changes VALUES (0);

ALTER TABLE pinned_paths RENAME TO earlier_pinned_paths;
CREATE TABLE pinned_paths (
    cache TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cache, name, number, hash)
) STRICT, WITHOUT ROWID;
INSERT INTO pinned_paths SELECT cache, name, 1, hash FROM earlier_pinned_paths;
DROP TABLE earlier_pinned_paths;

-- When and how often paths were asked for.
CREATE TABLE uses (
    cache TEXT NOT NULL,
    hash BLOB NOT NULL,       -- 20 bytes
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (cache, hash)
) STRICT, WITHOUT ROWID;

-- What was collected.
CREATE TABLE tombstones (
    number INTEGER PRIMARY KEY,
    cache TEXT NOT NULL,
    hash BLOB NOT NULL,
    path TEXT NOT NULL,
    at INTEGER NOT NULL,
    why TEXT NOT NULL
) STRICT;
CREATE INDEX tombstones_of_path ON tombstones (hash);

-- When a cache was last collected, or first served.
CREATE TABLE collected (
    cache TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the command line asks of the server.
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    cache TEXT NOT NULL,
    what TEXT NOT NULL,       -- JSON
    asked INTEGER NOT NULL,
    taken INTEGER,
    said TEXT,                -- JSON: how far it is, or what came of it
    ended INTEGER
) STRICT;

-- Whether a token may pin.
ALTER TABLE tokens ADD COLUMN pin INTEGER NOT NULL DEFAULT 0;
";

const FOURTH: &str = "
-- How far caches are verified.
CREATE TABLE verifications (
    cache TEXT PRIMARY KEY,
    began INTEGER NOT NULL,
    position BLOB,            -- 20 bytes: the last path that was
    paths INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    ended INTEGER
) STRICT, WITHOUT ROWID;

-- What was found by that, and not mended.
CREATE TABLE findings (
    cache TEXT NOT NULL,
    hash BLOB NOT NULL,       -- 20 bytes
    kind TEXT NOT NULL,
    what TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (cache, hash, kind)
) STRICT, WITHOUT ROWID;
";

const FIFTH: &str = "
-- The names of NARs have an order, so that the oldest can go.
ALTER TABLE nar_names RENAME TO earlier_nar_names;
CREATE TABLE nar_names (
    number INTEGER PRIMARY KEY,
    cache TEXT NOT NULL,
    name TEXT NOT NULL,
    nar_hash TEXT NOT NULL,
    compression TEXT NOT NULL,
    UNIQUE (cache, name)
) STRICT;
INSERT INTO nar_names (cache, name, nar_hash, compression)
    SELECT cache, name, nar_hash, compression FROM earlier_nar_names;
DROP TABLE earlier_nar_names;
";

/// Brings the database to the last of `schemas`, in one transaction; refuses a newer one.
pub(super) fn migrate(
    connection: &mut Connection,
    file: &Path,
    schemas: &[&str],
) -> Result<(), StateError> {
    let known = i64::try_from(schemas.len()).unwrap_or(i64::MAX);
    let refuse_newer = |found: i64| match found > known {
        true => Err(StateError::Newer { file: file.to_owned(), found, known }),
        false => Ok(found),
    };
    let failed = |source| error(file, source);
    if refuse_newer(version(connection).map_err(failed)?)? == known {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have done it meanwhile.
    let found = refuse_newer(version(&transaction).map_err(failed)?)?;
    let Ok(done) = usize::try_from(found) else {
        let why = format!("its schema is {found}");
        return Err(StateError::Damaged { file: file.to_owned(), why });
    };
    for step in &schemas[done..] {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
