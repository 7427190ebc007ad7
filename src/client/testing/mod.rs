//! A Nix store of a test's own, as a client finds it.

pub(super) mod server;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::nix::hash::Sha256;
use crate::nix::nar;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::source::local::StoreLayout;
use crate::source::local::tree::{NarStream, ReadPool, StoreHandle, StoreTree};

/// The tables of Nix's schema 10 that are read, with Nix's names and types.
const SCHEMA: &str = "
    create table ValidPaths (id integer primary key autoincrement not null, path text unique not null,
        hash text not null, registrationTime integer not null, deriver text, narSize integer,
        ultimate integer, sigs text, ca text);
    create table Refs (referrer integer not null, reference integer not null);
    create index IndexReferrer on Refs(referrer);";

/// A store whose files lie elsewhere than its store directory says.
pub(super) struct Store {
    directory: tempfile::TempDir,
    database: Connection,
}

impl Store {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["real", "var/db", "var/temproots"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let database = Connection::open(directory.path().join("var/db/db.sqlite")).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database.pragma_update(None, "synchronous", "off").unwrap();
        database.execute_batch(SCHEMA).unwrap();
        Self { directory, database }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn layout(&self) -> StoreLayout {
        StoreLayout {
            store_dir: StoreDir::default(),
            real_dir: self.at("real"),
            state_dir: self.at("var"),
            log_dir: self.at("log"),
        }
    }

    pub(super) fn real(&self, path: &StorePath) -> PathBuf {
        self.at("real").join(path.as_str())
    }

    /// Puts a file into the store and registers it, as Nix would.
    pub(super) fn add(&self, name: &str, content: &[u8], references: &[&StorePath]) -> StorePath {
        let path = path_of(name);
        let file = self.real(&path);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).unwrap();
        let nar = self.nar(&path);
        self.insert(&path, Sha256::of(&nar), nar.len(), references);
        path
    }

    pub(super) fn add_self_reference(
        &self,
        name: &str,
        content: &[u8],
        references: &[&StorePath],
    ) -> StorePath {
        let path = self.add(name, content, references);
        self.refer(&path, &path);
        path
    }

    /// Registers a path that has no files.
    pub(super) fn register(&self, name: &str, references: &[&StorePath]) -> StorePath {
        let path = path_of(name);
        self.insert(&path, Sha256::of(name.as_bytes()), 1, references);
        path
    }

    /// Signs a path, or whatever text is given for a signature.
    pub(super) fn sign(&self, path: &StorePath, signature: &str) {
        let words = (signature, self.full(path));
        self.database.execute("update ValidPaths set sigs = ?1 where path = ?2", words).unwrap();
    }

    /// Has the database forget a path, as the collector does.
    pub(super) fn forget(&self, path: &StorePath) {
        self.database.execute("delete from ValidPaths where path = ?1", [self.full(path)]).unwrap();
    }

    /// What is registered of a path.
    pub(super) fn info(&self, path: &StorePath) -> PathInfo {
        let paths = super::closure::LocalPaths::new(self.layout());
        paths.closure(std::slice::from_ref(path)).unwrap().pop().unwrap()
    }

    /// The NAR of a path as it lies there.
    pub(super) fn nar(&self, path: &StorePath) -> Vec<u8> {
        let handle = StoreHandle::open(&self.at("real")).unwrap();
        let tree = StoreTree::new(&handle, path, nar::Limits::default());
        let pool = ReadPool::start(1).unwrap();
        let mut stream = NarStream::start(&pool, tree, None, None);
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next_blocking() {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        bytes
    }

    fn insert(&self, path: &StorePath, hash: Sha256, size: usize, references: &[&StorePath]) {
        let words = (self.full(path), hash.to_string(), i64::try_from(size).unwrap());
        let text = "insert into ValidPaths (path, hash, registrationTime, narSize)
                    values (?1, ?2, 1, ?3)";
        self.database.execute(text, words).unwrap();
        for reference in references {
            self.refer(path, reference);
        }
    }

    fn refer(&self, referrer: &StorePath, reference: &StorePath) {
        let text = "insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b
                    where a.path = ?1 and b.path = ?2";
        let words = [self.full(referrer), self.full(reference)];
        assert_eq!(self.database.execute(text, words).unwrap(), 1);
    }

    fn full(&self, path: &StorePath) -> String {
        StoreDir::default().join(path)
    }
}

/// A store path of this name.
pub(super) fn path_of(name: &str) -> StorePath {
    let digest = Sha256::of(name.as_bytes());
    let hash = StorePathHash::from_bytes(digest.0[..20].try_into().unwrap());
    StorePath::parse(&format!("{hash}-{name}")).unwrap()
}
