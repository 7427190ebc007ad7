//! The database as it is made, shared, lost and found.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::index::uses::Use;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::store_path::{StorePath, StorePathHash};

fn token(id: &str) -> TokenRecord {
    TokenRecord {
        id: id.into(),
        secret_hash: [7; 32],
        name: "runner".into(),
        push: true,
        pull: false,
        pin: true,
        caches: Some(vec!["default".into(), "team".into()]),
        created: 1000,
        expires: Some(2000),
        revoked: None,
    }
}

fn path(letter: char) -> StorePath {
    let hash = letter.to_string().repeat(32);
    StorePath::parse(&format!("{hash}-name")).unwrap()
}

fn push(cache: &str, letter: char) -> PushRecord {
    PushRecord {
        cache: cache.into(),
        path: path(letter),
        nar_hash: Sha256::of(b"nar"),
        nar_size: 5,
        pusher: "runner".into(),
        token: Some("abcdefgh".into()),
        address: "192.0.2.1".into(),
        at: 1500,
    }
}

fn nar_name(number: u8) -> NarName {
    NarName {
        cache: "default".into(),
        name: NarFileName::zstd(Sha256([number ^ 0xff; 32])),
        nar_hash: Sha256([number; 32]),
        compression: "xz".into(),
    }
}

fn conflict(number: u8) -> ConflictRecord {
    ConflictRecord {
        cache: "default".into(),
        path: path('a').hash(),
        kept: Sha256([0; 32]),
        refused: Sha256([number; 32]),
        pusher: "runner".into(),
        token: None,
        address: "a unix socket".into(),
        at: i64::from(number),
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("state/state.sqlite")
}

/// A database with enough in it to have several pages of each table, all of them in the main file.
fn filled(data: &Path) -> StateDb {
    let state = StateDb::open(data).unwrap();
    for number in 0..60 {
        state.add_token(&token(&format!("{number:08}"))).unwrap();
    }
    let pushes: Vec<_> = "abcdfg".chars().map(|letter| push("default", letter)).collect();
    let pushes: Vec<_> = std::iter::repeat_n(pushes, 40).flatten().collect();
    state.record_pushes(&pushes).unwrap();
    for number in 0..60 {
        state.record_conflict(&conflict(number)).unwrap();
    }
    state.record_nar_names(&(0..60).map(nar_name).collect::<Vec<_>>()).unwrap();
    let hashes: Vec<_> = "abcdfg".chars().map(|letter| path(letter).hash()).collect();
    for number in 0..60 {
        let name = format!("pin-{number}");
        let revision = NewRevision { cache: "default", ..revision(&name, &hashes) };
        state.pin(revision, Some(Keep::Forever), number).unwrap();
    }
    let uses: Vec<_> = hashes.iter().map(|hash| (*hash, Use { last: 5, count: 2 })).collect();
    for cache in 0..20 {
        let cache = format!("cache-{cache}");
        state.keep_uses(&cache, &uses).unwrap();
        state.note_collected(&cache, 7).unwrap();
        let verification = Verification { began: 1, ended: Some(2), ..Verification::default() };
        state.note_verification(&cache, &verification).unwrap();
        for hash in &hashes {
            state.note_findings(&cache, *hash, &[("nar", "it is wrong ".repeat(9))], 3).unwrap();
        }
        let gone = |letter| Tombstone {
            cache: cache.clone(),
            path: path(letter),
            at: 9,
            why: "to make room".into(),
        };
        state.bury(&"abcdfg".chars().map(gone).collect::<Vec<_>>()).unwrap();
        state.ask(&cache, "{}", 4).unwrap();
    }
    lock(&state.writer).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    state
}

fn aside(data: &Path) -> usize {
    let entries = std::fs::read_dir(data.join("state")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("state.sqlite.corrupt-2")).count()
}

#[test]
fn the_database_is_private_durable_and_in_wal_mode() {
    let data = tempfile::tempdir().unwrap();
    let state = filled(data.path());
    for entry in std::fs::read_dir(data.path().join("state")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
    let mode = std::fs::metadata(data.path().join("state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let writer = lock(&state.writer);
    let pragma = |name: &str| {
        writer
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2));
}

#[test]
fn tokens_are_read_back_as_they_were_kept_and_revoked_once() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let every_cache =
        TokenRecord { caches: None, expires: None, created: 900, ..token("zzzzzzzz") };
    state.add_token(&token("aaaaaaaa")).unwrap();
    state.add_token(&every_cache).unwrap();
    assert_eq!(state.tokens().unwrap().all, [every_cache, token("aaaaaaaa")]);
    assert!(state.add_token(&token("aaaaaaaa")).is_err(), "an id is never given twice");
    let before = state.token_changes().unwrap();
    assert_eq!(state.revoke_token("aaaaaaaa", 1).unwrap(), Revoked::Now);
    assert_eq!(state.revoke_token("aaaaaaaa", 2).unwrap(), Revoked::Before);
    assert_eq!(state.revoke_token("bbbbbbbb", 2).unwrap(), Revoked::Unknown);
    assert_eq!(state.token_changes().unwrap(), before + 1);
    assert_eq!(state.tokens().unwrap().all[1].revoked, Some(1));
}

#[test]
fn what_another_process_writes_is_noticed_and_what_nobody_writes_is_not() {
    let data = tempfile::tempdir().unwrap();
    let server = StateDb::open(data.path()).unwrap();
    let command = StateDb::open(data.path()).unwrap();
    let version = || server.data_version().unwrap();
    let before = version();
    assert_eq!(version(), before);
    command.add_token(&token("aaaaaaaa")).unwrap();
    let between = version();
    assert_ne!(between, before);
    assert_eq!(version(), between);
    server.revoke_token("aaaaaaaa", 5).unwrap();
    assert_ne!(version(), between, "what this process writes as well");
}

#[test]
fn a_database_that_was_replaced_is_not_believed() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    std::fs::remove_file(file(data.path())).unwrap();
    assert!(matches!(state.data_version(), Err(StateError::Replaced(_))));
}

#[test]
fn pushes_and_conflicts_are_found_by_path_in_one_cache_or_in_all() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let pushes = [push("default", 'a'), push("team", 'a'), push("team", 'b')];
    state.record_pushes(&pushes).unwrap();
    assert_eq!(state.pushes_of(None, path('a').hash()).unwrap(), pushes[..2]);
    assert_eq!(state.pushes_of(Some("team"), path('a').hash()).unwrap(), pushes[1..2]);
    assert_eq!(state.pushes_of(Some("other"), path('a').hash()).unwrap(), []);
    state.record_conflict(&conflict(1)).unwrap();
    assert_eq!(state.conflicts_of(Some("default"), path('a').hash()).unwrap(), [conflict(1)]);
    assert_eq!(state.conflicts_of(None, path('b').hash()).unwrap(), []);
}

#[test]
fn only_the_newest_conflicts_are_kept() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    for number in 1..=9 {
        state.record_conflict_of(&conflict(number), 4).unwrap();
    }
    let kept = state.conflicts_of(None, path('a').hash()).unwrap();
    assert_eq!(kept, [conflict(6), conflict(7), conflict(8), conflict(9)]);
}

#[test]
fn only_the_newest_pushes_and_names_are_kept_and_what_is_pushed_again_is_new() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    for letter in "abcd".chars() {
        state.record_pushes_of(&[push("default", letter)], 2).unwrap();
    }
    let is_known = |letter| !state.pushes_of(None, path(letter).hash()).unwrap().is_empty();
    assert_eq!(['a', 'b', 'c', 'd'].map(is_known), [false, false, true, true]);
    for number in [1, 2, 1, 3] {
        state.record_nar_names_of(&[nar_name(number)], 2).unwrap();
    }
    let is_known = |number| {
        let found = state.nar_of_name("default", nar_name(number).name).unwrap();
        found.inspect(|found| assert_eq!(*found, (Sha256([number; 32]), "xz".into()))).is_some()
    };
    assert_eq!([1, 2, 3].map(is_known), [true, false, true]);
}

#[test]
fn names_of_nars_that_an_earlier_version_kept_are_found() {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("state")).unwrap();
    let path = file(data.path());
    let mut connection = Connection::open(&path).unwrap();
    schema::migrate(&mut connection, &path, &schema::SCHEMAS[..4]).unwrap();
    let name = nar_name(1);
    connection
        .execute(
            "INSERT INTO nar_names VALUES ('default', ?1, ?2, 'xz')",
            [name.name.file_name(), name.nar_hash.to_nix32()],
        )
        .unwrap();
    drop(connection);
    let state = StateDb::open(data.path()).unwrap();
    let found = state.nar_of_name("default", name.name).unwrap();
    assert_eq!(found, Some((name.nar_hash, "xz".into())));
}

#[test]
fn a_database_that_is_there_is_opened_and_none_is_made_by_looking() {
    let data = tempfile::tempdir().unwrap();
    assert!(StateDb::open_existing(data.path()).unwrap().is_none());
    assert!(!data.path().join("state").exists());
    StateDb::open(data.path()).unwrap();
    assert!(StateDb::open_existing(data.path()).unwrap().is_some());
}

#[test]
fn a_page_of_random_bytes_anywhere_never_panics_and_is_set_aside_where_it_matters() {
    let data = tempfile::tempdir().unwrap();
    drop(filled(data.path()));
    let whole = std::fs::read(file(data.path())).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 8, "{pages} pages");
    let noise: Vec<u8> =
        (0..4096_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let mut set_aside = 0;
    for page in 0..pages {
        let data = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[page * 4096..][..4096].copy_from_slice(&noise);
        StateDb::open(data.path()).unwrap();
        for ending in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{ending}", file(data.path()).display()));
        }
        std::fs::write(file(data.path()), bytes).unwrap();
        let state = StateDb::open_or_begin_anew(data.path()).unwrap();
        set_aside += aside(data.path()).min(1);
        assert_eq!(state.set_aside().unwrap().is_some(), aside(data.path()) > 0, "page {page}");
        // Whatever was found: it works, and it is whole.
        state.add_token(&token("new-one")).unwrap();
        assert!(state.tokens().unwrap().all.iter().any(|token| token.id == "new-one"));
        state.check().unwrap();
    }
    assert_eq!(set_aside, pages, "every page of this database is in use");
}

#[test]
fn a_truncated_database_is_set_aside_and_begun_anew() {
    for length in [1, 100, 4096, 4097, 12_000] {
        let data = tempfile::tempdir().unwrap();
        drop(filled(data.path()));
        std::fs::File::options()
            .write(true)
            .open(file(data.path()))
            .unwrap()
            .set_len(length)
            .unwrap();
        let error = StateDb::open(data.path()).and_then(StateDb::check).err();
        assert!(matches!(error, Some(StateError::Damaged { .. })), "{length}: {error:?}");
        let state = StateDb::open_or_begin_anew(data.path()).unwrap();
        assert_eq!(state.tokens().unwrap().all, []);
        assert!(aside(data.path()) >= 1, "{length}");
    }
}

#[test]
fn what_was_left_of_a_database_is_no_part_of_a_new_one() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    state.add_token(&token("aaaaaaaa")).unwrap();
    // As after a crash between the first rename of setting it aside and the second one.
    std::fs::remove_file(file(data.path())).unwrap();
    let log = format!("{}-wal", file(data.path()).display());
    assert!(std::fs::metadata(&log).unwrap().len() > 0);
    let anew = StateDb::open_or_begin_anew(data.path()).unwrap();
    assert_eq!(anew.tokens().unwrap().all, []);
    assert_eq!(aside(data.path()), 2);
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    state.add_token(&token("aaaaaaaa")).unwrap();
    let ours = i64::try_from(schema::SCHEMAS.len()).unwrap();
    lock(&state.writer).pragma_update(None, "user_version", ours + 1).unwrap();
    drop(state);
    for open in [StateDb::open, StateDb::open_or_begin_anew] {
        let error = open(data.path()).err().unwrap();
        let is_newer = matches!(error, StateError::Newer { found, known, .. } if (found, known) == (ours + 1, ours));
        assert!(is_newer, "{error}");
    }
    assert_eq!(aside(data.path()), 0);
    let connection = Connection::open(file(data.path())).unwrap();
    let count: i64 =
        connection.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn an_older_schema_is_brought_up_in_one_transaction_and_keeps_its_rows() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    state.add_token(&token("aaaaaaaa")).unwrap();
    drop(state);
    let path = file(data.path());
    let mut connection = connect(&path).unwrap();
    let version = |connection: &Connection| {
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap()
    };
    // A step that fails half way changes nothing.
    let with = |step| [&schema::SCHEMAS[..], &[step]].concat();
    let now = i64::try_from(schema::SCHEMAS.len()).unwrap();
    let broken = with("CREATE TABLE more (a); INSERT INTO nowhere VALUES (1);");
    assert!(schema::migrate(&mut connection, &path, &broken).is_err());
    assert_eq!(version(&connection), now);
    assert!(connection.prepare("SELECT * FROM more").is_err());
    let next = with("ALTER TABLE tokens ADD COLUMN note TEXT;");
    schema::migrate(&mut connection, &path, &next).unwrap();
    assert_eq!(version(&connection), now + 1);
    let id: String = connection
        .query_row("SELECT id FROM tokens WHERE note IS NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(id, "aaaaaaaa");
}

#[test]
fn two_that_open_a_new_database_at_once_both_succeed() {
    for _ in 0..16 {
        let data = tempfile::tempdir().unwrap();
        let open = || {
            let state = StateDb::open(data.path())?;
            state.tokens().map(|tokens| tokens.all.len())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap(), 0);
            }
        });
    }
}

#[test]
fn a_place_is_remembered_with_what_was_mounted_there_until_it_is_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let directory = Path::new("/tank/a b/\u{e9}");
    assert_eq!(state.place(directory).unwrap(), None);
    state.note_place(directory, false, 1).unwrap();
    state.note_place(directory, true, 2).unwrap();
    assert_eq!(state.place(directory).unwrap(), Some(true));
    assert!(state.forget_place(directory).unwrap() && !state.forget_place(directory).unwrap());
    assert_eq!(state.place(directory).unwrap(), None);
}

/// A revision of a pin of the default cache.
fn revision<'a>(name: &'a str, paths: &'a [StorePathHash]) -> NewRevision<'a> {
    NewRevision { cache: "default", name, paths, pinner: "ci" }
}

#[test]
fn a_pin_keeps_its_paths_and_its_name_is_its_own() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let paths = [path('a').hash(), path('b').hash()];
    assert!(state.add_pin(revision("v1", &paths), "release-v1", 7).unwrap());
    assert!(!state.add_pin(revision("v1", &[]), "other", 8).unwrap(), "the first one stays");
    let of_team = NewRevision { cache: "team", ..revision("v1", &paths[..1]) };
    assert_eq!(state.pin(of_team, None, 9).unwrap(), Pinned::Revision(1), "another cache");
    let [record] = &state.pins("default").unwrap()[..] else { panic!("one pin") };
    assert_eq!(record.release.as_deref(), Some("release-v1"));
    assert_eq!((record.paths, record.revisions, record.created), (2, 1, 7));
    assert_eq!(state.release_of_pin("default", "v1").unwrap().as_deref(), Some("release-v1"));
    assert_eq!(state.release_of_pin("team", "v1").unwrap(), None);
    assert_eq!(state.pin(revision("v1", &paths), None, 9).unwrap(), Pinned::OfRelease);
    assert_eq!(state.pinned_paths("default").unwrap(), paths);
    assert!(state.remove_pin("default", "v1").unwrap());
    assert!(!state.remove_pin("default", "v1").unwrap());
    assert_eq!(state.pinned_paths("default").unwrap(), []);
    assert_eq!(state.pinned_paths("team").unwrap(), paths[..1]);
}

#[test]
fn revisions_of_a_pin_stay_as_long_as_it_says() {
    const DAY: i64 = 86_400;
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let paths = ['a', 'b', 'c', 'd'].map(|letter| path(letter).hash());
    let pin = |name: &str, index: usize, keep: Option<Keep>, now: i64| {
        state.pin(revision(name, &paths[index..=index]), keep, now).unwrap()
    };
    let named = |name: &str| -> Vec<_> {
        let revisions = state.pin_revisions("default", name).unwrap();
        revisions.into_iter().map(|one| (one.number, one.paths[0])).collect()
    };
    assert_eq!(pin("main", 0, Some(Keep::Revisions(2)), DAY), Pinned::Revision(1));
    pin("main", 1, None, 2 * DAY);
    assert_eq!(pin("main", 2, None, 3 * DAY), Pinned::Revision(3));
    // What it keeps is said once, and numbers are never given again.
    assert_eq!(named("main"), [(3, paths[2]), (2, paths[1])]);
    pin("main", 3, Some(Keep::Revisions(1)), 4 * DAY);
    assert_eq!(named("main"), [(4, paths[3])]);

    pin("night", 0, Some(Keep::Days(7)), DAY);
    pin("night", 1, None, 5 * DAY);
    pin("kept", 2, None, 0);
    state.end_revisions("default", 8 * DAY).unwrap();
    assert_eq!(named("night"), [(2, paths[1]), (1, paths[0])], "on the seventh day it is there");
    state.end_revisions("default", 8 * DAY + 1).unwrap();
    assert_eq!(named("night"), [(2, paths[1])]);
    let roots = state.pinned_paths("default").unwrap();
    assert_eq!(roots.len(), 3, "{roots:?}");
    state.end_revisions("default", 1000 * DAY).unwrap();
    let names: Vec<_> = state.pins("default").unwrap().into_iter().map(|pin| pin.name).collect();
    // The last revision of a pin by days goes as well, and the pin with it.
    assert_eq!(names, ["kept", "main"]);
    assert_eq!(named("night"), []);
    // Not in the cache next door.
    let of_team = NewRevision { cache: "team", ..revision("x", &paths) };
    state.pin(of_team, Some(Keep::Days(1)), 0).unwrap();
    state.end_revisions("default", 1000 * DAY).unwrap();
    assert_eq!(state.pins("team").unwrap().len(), 1);
}

#[test]
fn what_was_asked_for_is_added_up_and_forgotten_with_what_is_buried() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let (one, other) = (path('a'), path('b'));
    let used = |last, count| Use { last, count };
    state.keep_uses("default", &[(one.hash(), used(5, 2)), (other.hash(), used(6, 1))]).unwrap();
    state.keep_uses("default", &[(one.hash(), used(4, 3))]).unwrap();
    state.keep_uses("team", &[(one.hash(), used(9, 9))]).unwrap();
    let uses = || {
        let mut uses = HashMap::new();
        state
            .each_use("default", |hash, used| {
                uses.insert(hash, used);
            })
            .unwrap();
        uses
    };
    let known = uses();
    assert_eq!(known.len(), 2);
    assert_eq!((known[&one.hash()], known[&other.hash()]), (used(5, 5), used(6, 1)));
    let tombstone = |at| Tombstone {
        cache: "default".into(),
        path: one.clone(),
        at,
        why: "to make room".into(),
    };
    state.bury(&[tombstone(7)]).unwrap();
    state.bury(&[tombstone(8)]).unwrap();
    assert_eq!(uses().len(), 1);
    assert_eq!(state.tombstones_of(None, one.hash()).unwrap(), [tombstone(7), tombstone(8)]);
    assert_eq!(state.tombstones_of(Some("team"), one.hash()).unwrap(), []);
    assert_eq!(state.collected_at("default").unwrap(), None);
    for at in [3, 4] {
        state.note_collected("default", at).unwrap();
        assert_eq!(state.collected_at("default").unwrap(), Some(at));
    }
}

#[test]
fn a_job_is_taken_once_and_says_how_far_it_is() {
    let data = tempfile::tempdir().unwrap();
    let state = StateDb::open(data.path()).unwrap();
    let [first, second] = ["a", "b"].map(|what| state.ask("default", what, 1).unwrap());
    let job = |number| state.job(number).unwrap().unwrap();
    assert!(!job(first).is_taken && state.withdraw(second).unwrap());
    assert_eq!(state.job(second).unwrap(), None);
    let taken = state.take_job(2).unwrap().unwrap();
    assert_eq!((taken.number, taken.what.as_str()), (first, "a"));
    assert_eq!(state.take_job(2).unwrap(), None);
    assert!(job(first).is_taken && !state.withdraw(first).unwrap());
    state.say(first, "half").unwrap();
    assert_eq!(
        job(first),
        JobState { is_taken: true, has_ended: false, said: Some("half".into()) }
    );
    state.end_job(first, "all", 3).unwrap();
    state.say(first, "late").unwrap();
    assert_eq!(job(first), JobState { is_taken: true, has_ended: true, said: Some("all".into()) });
    // Of a server that ended with its job nobody hears any more.
    let left = state.ask("default", "c", 4).unwrap();
    state.take_job(4).unwrap().unwrap();
    let waits = state.ask("default", "d", 4).unwrap();
    state.clear_jobs(5).unwrap();
    assert_eq!(state.job(left).unwrap(), None);
    assert!(state.job(first).unwrap().is_some() && state.job(waits).unwrap().is_some());
    state.clear_jobs(10_000).unwrap();
    assert_eq!(state.job(first).unwrap(), None);
}
