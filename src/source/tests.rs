//! Sources and caches on real files and a real database of Nix's schema.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::cache::{Cache, Remembered};
use super::local::tree::{NarStream, ReadPool, StoreHandle, StoreTree};
use super::local::{LocalStore, StoreLayout};
use super::view::ViewError;
use super::vital::Standing;
use super::{BankSource, Source, SourceError};
use crate::bank::{Bank, BuildId, Object};
use crate::metrics::Metrics;
use crate::nix::cache_info::CacheInfo;
use crate::nix::hash::{Hasher, Sha256};
use crate::nix::nar;
use crate::nix::nar_url::NarRequest;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::{KeyName, fingerprint};
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::sign::{KeyRing, SecretKey};
use crate::zfs::SnapshotName;

/// The tables of Nix's schema 10 that are read, with Nix's names and types.
const SCHEMA: &str = "
    create table ValidPaths (id integer primary key autoincrement not null, path text unique not null,
        hash text not null, registrationTime integer not null, deriver text, narSize integer,
        ultimate integer, sigs text, ca text);
    create table Refs (referrer integer not null, reference integer not null);";

struct Host {
    directory: tempfile::TempDir,
    database: Connection,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["store", "var/db", "bank"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let database = Connection::open(directory.path().join("var/db/db.sqlite")).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database.execute_batch(SCHEMA).unwrap();
        Self { directory, database }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a file into the store and registers it, as Nix would.
    fn add(&self, digit: char, content: &str) -> StorePathHash {
        let path = path(digit);
        let file = self.at("store").join(path.as_str());
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).unwrap();
        let (hash, size) = nar_of(&self.at("store"), &path);
        self.database
            .execute(
                "insert or replace into ValidPaths (path, hash, registrationTime, narSize)
                 values (?1, ?2, 1, ?3)",
                (StoreDir::default().join(&path), hash.to_string(), i64::try_from(size).unwrap()),
            )
            .unwrap();
        path.hash()
    }

    fn store(&self) -> Arc<LocalStore> {
        let layout = StoreLayout {
            store_dir: StoreDir::default(),
            real_dir: self.at("store"),
            state_dir: self.at("var"),
            log_dir: self.at("log"),
        };
        let deadline = Duration::from_millis(50);
        Arc::new(LocalStore::new(layout, nar::Limits::default(), deadline, None, false))
    }

    fn cache(&self) -> Cache {
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        let bank = Bank::open(self.at("bank"), &info).unwrap();
        let bank = Source::Bank(BankSource::new(Arc::new(bank), StoreDir::default()));
        let sources = vec![Arc::new(bank), Arc::new(Source::Store(self.store()))];
        let keys = KeyRing::new(vec![key()]);
        let metrics = Arc::new(Metrics::new().unwrap());
        let cache = Cache::new("default".into(), info, sources, keys, 1 << 20, metrics);
        if cache.look().is_ok() {
            cache.scan();
        }
        cache
    }

    /// Puts a narinfo and what it promises into the bank.
    fn put(&self, digit: char, nar: &[u8], promised: u64) -> StorePathHash {
        self.put_file(digit, nar, ("none", nar), promised)
    }

    /// Puts a narinfo and its NAR into the bank, in a file that is compressed.
    fn put_compressed(&self, digit: char, nar: &[u8]) -> StorePathHash {
        let file = zstd::encode_all(nar, 1).unwrap();
        self.put_file(digit, nar, ("zstd", &file), file.len() as u64)
    }

    fn put_file(
        &self,
        digit: char,
        nar: &[u8],
        (compression, file): (&str, &[u8]),
        promised: u64,
    ) -> StorePathHash {
        let path = path(digit);
        let nar_hash = Sha256::of(nar);
        let ending = if compression == "zstd" { ".zst" } else { "" };
        let url = format!("nar/{}.nar{ending}", nar_hash.to_nix32());
        let narinfo = NarInfo {
            info: PathInfo::new(path.clone(), nar_hash, nar.len() as u64),
            url: url.clone(),
            compression: compression.into(),
            file_hash: Some(Sha256::of(file)),
            file_size: Some(promised),
        };
        std::fs::create_dir_all(self.at("bank/nar")).unwrap();
        std::fs::write(self.at("bank").join(url), file).unwrap();
        let name = format!("{}.narinfo", path.hash());
        std::fs::write(self.at("bank").join(name), narinfo.to_text(&StoreDir::default())).unwrap();
        path.hash()
    }
}

fn path(digit: char) -> StorePath {
    StorePath::parse(&format!("{}-x", digit.to_string().repeat(32))).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(KeyName::parse("test-1").unwrap()).unwrap()
}

fn nar_of(store: &std::path::Path, path: &StorePath) -> (Sha256, u64) {
    let handle = StoreHandle::open(store).unwrap();
    let tree = StoreTree::new(&handle, path, nar::Limits::default());
    let pool = ReadPool::start(1).unwrap();
    let mut stream = NarStream::start(&pool, tree, None, None);
    let mut hasher = Hasher::default();
    while let Some(chunk) = stream.next_blocking() {
        hasher.update(&chunk.unwrap());
    }
    hasher.finish()
}

fn nar_hash(cache: &Cache, hash: StorePathHash) -> Option<Sha256> {
    cache.look().unwrap();
    cache.find(hash).unwrap().map(|answer| answer.narinfo.info.nar_hash)
}

#[test]
fn a_path_of_the_store_is_found_and_signed() {
    let host = Host::new();
    let hash = host.add('a', "content");
    let cache = host.cache();
    let answer = cache.find(hash).unwrap().unwrap();
    let public = cache.keys().public();
    let text = fingerprint(&StoreDir::default(), &answer.narinfo.info);
    assert!(public[0].verifies(&text, &answer.narinfo.info.signatures[0]));
    assert!(matches!(cache.remembered(hash), Remembered::Hit(_)));
    assert!(matches!(cache.remembered(path('b').hash()), Remembered::Miss));
}

#[test]
fn a_path_that_comes_is_found_and_one_that_goes_is_absent_without_a_restart() {
    let host = Host::new();
    let stays = host.add('a', "content");
    let cache = host.cache();
    assert_eq!(nar_hash(&cache, path('b').hash()), None);
    let comes = host.add('b', "new");
    assert!(nar_hash(&cache, comes).is_some());
    host.database.execute("delete from ValidPaths where path like '%bbb-x'", []).unwrap();
    assert_eq!(nar_hash(&cache, comes), None);
    assert!(nar_hash(&cache, stays).is_some());
}

#[test]
fn a_path_created_again_with_another_hash_is_never_answered_from_memory() {
    let host = Host::new();
    let hash = host.add('a', "first");
    let cache = host.cache();
    let first = nar_hash(&cache, hash).unwrap();
    std::fs::remove_file(host.at("store").join(path('a').as_str())).unwrap();
    host.add('a', "second");
    let second = nar_hash(&cache, hash).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_valid_path_whose_files_are_gone_is_absent() {
    let host = Host::new();
    let hash = host.add('a', "content");
    std::fs::remove_file(host.at("store").join(path('a').as_str())).unwrap();
    assert_eq!(nar_hash(&host.cache(), hash), None);
}

#[test]
fn a_database_that_cannot_be_read_is_an_error_never_an_absence() {
    let host = Host::new();
    let hash = host.add('a', "content");
    let cache = host.cache();
    std::fs::write(host.at("var/db/schema"), "11").unwrap();
    let fresh = host.cache();
    assert!(fresh.find(hash).is_err(), "another schema");
    std::fs::remove_file(host.at("var/db/schema")).unwrap();

    std::fs::rename(host.at("var/db/db.sqlite"), host.at("var/db/away")).unwrap();
    assert!(cache.look().is_err() && cache.find(hash).is_err(), "missing");
    assert!(cache.find(path('b').hash()).is_err(), "missing, another path");

    // With its log beside it SQLite would rebuild the old database from that.
    std::fs::remove_file(host.at("var/db/db.sqlite-wal")).unwrap();
    std::fs::write(host.at("var/db/db.sqlite"), "this is no database ".repeat(100)).unwrap();
    assert!(cache.look().is_err() && cache.find(hash).is_err(), "not a database");
}

#[test]
fn a_locked_database_is_an_error_after_its_deadline() {
    let host = Host::new();
    let hash = host.add('a', "content");
    host.database.pragma_update(None, "journal_mode", "delete").unwrap();
    host.database.execute_batch("begin exclusive").unwrap();
    let cache = host.cache();
    assert!(cache.find(hash).is_err());
    host.database.execute_batch("rollback").unwrap();
    assert!(cache.find(hash).unwrap().is_some());
}

#[test]
fn what_a_bank_holds_damaged_is_absent_and_leaves_the_others_alone() {
    let host = Host::new();
    let whole = host.put('a', b"a nar", 5);
    let short = host.put('b', b"b nar", 9);
    let without = host.put('c', b"c nar", 5);
    let nar = format!("bank/nar/{}.nar", Sha256::of(b"c nar").to_nix32());
    std::fs::remove_file(host.at(&nar)).unwrap();
    let broken = path('d').hash();
    std::fs::write(host.at(&format!("bank/{broken}.narinfo")), "StorePath: no\n").unwrap();
    let foreign = path('f').hash();
    std::fs::copy(
        host.at(&format!("bank/{whole}.narinfo")),
        host.at(&format!("bank/{foreign}.narinfo")),
    )
    .unwrap();
    let cache = host.cache();
    assert!(cache.find(whole).unwrap().is_some());
    for damaged in [short, without, broken, foreign] {
        assert!(cache.find(damaged).unwrap().is_none(), "{damaged}");
    }
}

#[test]
fn a_nar_that_came_after_the_scan_is_found_by_its_name_alone() {
    let host = Host::new();
    let cache = host.cache();
    let nar_of = |nar: &[u8]| {
        let request =
            NarRequest::parse(&format!("{}.nar", Sha256::of(nar).to_nix32()), None).unwrap();
        cache.first(|source| source.nar(request)).unwrap()
    };
    let asked_for = host.put_compressed('a', b"asked for");
    let pushed = host.put_compressed('b', b"pushed");
    cache.look().unwrap();
    assert!(cache.find(asked_for).unwrap().is_some());
    cache.own_bank().unwrap().came(pushed);
    // What the scan found, which was before both.
    cache.learn();
    assert!(nar_of(b"asked for").is_some());
    assert!(nar_of(b"pushed").is_some());
    assert!(nar_of(b"never here").is_none());
}

#[test]
fn a_damaged_path_of_the_bank_is_answered_by_the_store() {
    let host = Host::new();
    let hash = host.add('a', "content");
    host.put('a', b"a nar", 9);
    assert!(host.cache().find(hash).unwrap().is_some());
}

#[test]
fn a_bank_that_is_away_is_an_error_unless_another_source_has_the_path() {
    let host = Host::new();
    let banked = host.put('a', b"a nar", 5);
    let stored = host.add('b', "content");
    let cache = host.cache();
    std::fs::rename(host.at("bank"), host.at("elsewhere")).unwrap();
    std::fs::create_dir(host.at("bank")).unwrap();
    assert!(cache.look().is_err());
    assert!(cache.find(banked).is_err() && cache.find(path('c').hash()).is_err());
    assert!(matches!(cache.remembered(path('c').hash()), Remembered::Unknown));
    assert!(cache.find(stored).unwrap().is_some());
    std::fs::remove_dir(host.at("bank")).unwrap();
    std::fs::rename(host.at("elsewhere"), host.at("bank")).unwrap();
    cache.look().unwrap();
    assert!(cache.find(banked).unwrap().is_some());
}

#[test]
fn other_keys_sign_from_the_next_answer_on_and_signatures_are_remembered() {
    let host = Host::new();
    let hash = host.add('a', "content");
    let cache = host.cache();
    let text = fingerprint(&StoreDir::default(), &cache.find(hash).unwrap().unwrap().narinfo.info);
    assert!(Arc::ptr_eq(&cache.sign(&text), &cache.sign(&text)));
    let other = SecretKey::generate(KeyName::parse("test-2").unwrap()).unwrap();
    cache.set_keys(KeyRing::new(vec![other]));
    let signatures = &cache.find(hash).unwrap().unwrap().narinfo.info.signatures;
    assert_eq!(signatures[0].key_name().as_str(), "test-2");
}

#[test]
fn a_source_that_is_said_to_be_away_answers_nothing_and_asks_nothing() {
    let host = Host::new();
    let banked = host.put('a', b"a nar", 5);
    let stored = host.add('b', "content");
    let cache = host.cache();
    assert!(cache.find(banked).unwrap().is_some() && cache.find(stored).unwrap().is_some());
    let [bank, store] = cache.sources() else { panic!("a bank and a store") };
    let nar = NarRequest::OfPath { path: banked, nar_hash: None };
    for source in [bank, store] {
        source.vital().set(Standing::Away("the pool tank is suspended".into()));
        let id = BuildId::parse("abcd").unwrap();
        let refused = [
            source.look().err(),
            source.scan_if_due().err(),
            source.find(banked).err(),
            // Known in memory to be absent, which may be over.
            source.find(path('c').hash()).err(),
            source.nar(nar).err(),
            source.object(&Object::Listing(banked)).err(),
            source.debug_info(&id).err(),
        ];
        for error in refused {
            let error = error.unwrap();
            assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
            assert!(error.to_string().contains("tank is suspended"), "{error}");
        }
        assert!(!source.learn_some());
        assert!(cache.look().is_err());
        assert!(matches!(cache.remembered(banked), Remembered::Unknown));
        assert!(cache.find(path('c').hash()).is_err(), "a miss is not known to be one");
        source.vital().set(Standing::Well);
        cache.look().unwrap();
        assert!(cache.find(banked).unwrap().is_some() && cache.find(stored).unwrap().is_some());
        assert!(cache.find(path('c').hash()).unwrap().is_none());
    }
}

#[test]
fn a_view_stands_as_its_bank_does() {
    let host = Host::new();
    let hash = host.put('a', b"a nar", 5);
    let cache = host.cache();
    let snapshot = host.at("bank/.zfs/snapshot/x");
    std::fs::create_dir_all(snapshot.join("nar")).unwrap();
    let nar = format!("nar/{}.nar", Sha256::of(b"a nar").to_nix32());
    for name in ["nix-cache-info".to_owned(), format!("{hash}.narinfo"), nar] {
        std::fs::copy(host.at("bank").join(&name), snapshot.join(&name)).unwrap();
    }
    let view = cache.open_view(&SnapshotName::parse("x").unwrap()).unwrap();
    assert!(view.find(hash).unwrap().is_some());
    cache.sources()[0].vital().set(Standing::Away("suspended".into()));
    assert!(view.look().is_err() && view.find(hash).is_err());
    assert!(matches!(cache.look_at_view(&view), Err(ViewError::Unavailable(_))));
    let again = cache.open_view(&SnapshotName::parse("x").unwrap());
    assert!(matches!(again, Err(ViewError::Unavailable(_))));
}
