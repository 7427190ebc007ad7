//! A real Nix, in two versions, on stores of its own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use tempfile::TempDir;

use super::{command, elsewhere, project, target};

/// Which client: what an up-to-date machine runs, and what an old one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 2.26.3, of Debian trixie.
    Current,
    /// 2.8.0, of Debian bookworm.
    Old,
}

impl Version {
    pub(crate) const BOTH: [Self; 2] = [Self::Current, Self::Old];

    fn suite(self) -> &'static str {
        match self {
            Self::Current => "trixie",
            Self::Old => "bookworm",
        }
    }
}

static TOOLS: LazyLock<PathBuf> = LazyLock::new(|| {
    let tools = target().join("tools");
    if elsewhere().is_some() {
        // Unpacked already, and mounted where it was: its programs hold its name.
        return tools;
    }
    // Whoever runs the tests may need a proxy to reach the mirror.
    let mut order = command(project().join("tests/tools/nix.sh"));
    let outcome = run(order.arg(&tools).envs(std::env::vars_os()), 300);
    outcome.expect_success();
    tools
});

/// The directories of one Nix: its store, what it knows about it, and its logs.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    // Held so that the directory goes away with the store.
    _own: Option<Scratch>,
}

impl Store {
    /// The store under `root`, made if need be.
    pub(crate) fn at(root: &Path) -> Self {
        for part in ["store", "var", "log", "home"] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        Self { root: root.to_path_buf(), _own: None }
    }

    /// An empty store that a test may change as it likes.
    pub(crate) fn fresh() -> Self {
        let own = tempdir();
        let mut store = Self::at(own.path());
        store._own = Some(own);
        store
    }

    /// Its store directory, as it stands in its paths.
    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("var/db/db.sqlite")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// What tells Nix, and the server, where this store is.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("NIX_STORE_DIR", self.directory()),
            ("NIX_STATE_DIR", self.root.join("var")),
            ("NIX_LOG_DIR", self.logs()),
        ]
    }

    /// A Nix program on this store, in the current version.
    pub(crate) fn program(&self, name: &str) -> Command {
        nix_command(Version::Current, name, self, &self.root.join("home"))
    }

    /// Run it, expect it to succeed, and take what it printed.
    pub(crate) fn run(&self, name: &str, arguments: &[impl AsRef<OsStr>]) -> String {
        run(self.program(name).args(arguments), 180).expect_success().text()
    }

    /// `nix-store --add`: the store path of a file or tree.
    pub(crate) fn add(&self, source: &Path) -> StorePath {
        let path = self.run("nix-store", &[OsStr::new("--add"), source.as_os_str()]);
        StorePath::new(path.trim())
    }
}

/// A store path as text, with the parts that tests ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StorePath(String);

impl StorePath {
    pub(crate) fn new(path: &str) -> Self {
        assert!(path.starts_with('/'), "not a store path: {path:?}");
        Self(path.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// `<hash>-<name>`.
    pub(crate) fn base_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap()
    }

    /// The 32 characters that a narinfo is asked by.
    pub(crate) fn hash(&self) -> &str {
        &self.base_name()[..32]
    }
}

impl AsRef<OsStr> for StorePath {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(&self.0)
    }
}

/// A client machine: a chroot store that begins empty, for the same store directory, and its own caches.
pub(crate) struct Client<'a> {
    version: Version,
    store: &'a Store,
    own: Scratch,
}

impl<'a> Client<'a> {
    pub(crate) fn new(version: Version, store: &'a Store) -> Self {
        Self { version, store, own: tempdir() }
    }

    /// The chroot that it substitutes into.
    pub(crate) fn root(&self) -> PathBuf {
        self.own.path().join("root")
    }

    /// Where a store path lies on this client.
    pub(crate) fn real(&self, path: &StorePath) -> PathBuf {
        self.root().join("nix/store").join(path.base_name())
    }

    pub(crate) fn program(&self, name: &str) -> Command {
        nix_command(self.version, name, self.store, &self.own.path().join("home"))
    }

    pub(crate) fn try_run(&self, name: &str, arguments: &[impl AsRef<OsStr>]) -> Outcome {
        run(self.program(name).args(arguments), 180)
    }

    pub(crate) fn run(&self, name: &str, arguments: &[impl AsRef<OsStr>]) -> String {
        self.try_run(name, arguments).expect_success().text()
    }

    /// The words of a `nix copy` from `url` into the client, signatures required.
    pub(crate) fn copy_words(&self, url: &str, key: &str, paths: &[&StorePath]) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["copy", "--from", url, "--option", "trusted-public-keys", key]
                .map(OsString::from)
                .to_vec();
        words.extend(["--option", "require-sigs", "true", "--to"].map(OsString::from));
        words.push(self.root().into());
        words.extend(paths.iter().map(OsString::from));
        words
    }

    /// `nix copy` from `url` into the client, signatures required.
    pub(crate) fn copy_from(&self, url: &str, key: &str, paths: &[&StorePath]) -> Outcome {
        self.try_run("nix", &self.copy_words(url, key, paths))
    }

    /// `nix-store -r` with the server as the only substituter, signatures required.
    pub(crate) fn realise(&self, url: &str, key: &str, paths: &[&StorePath]) -> Outcome {
        let mut words: Vec<OsString> = vec!["--store".into(), self.root().into(), "-r".into()];
        for (option, value) in
            [("substituters", url), ("trusted-public-keys", key), ("require-sigs", "true")]
        {
            words.extend(["--option", option, value].map(OsString::from));
        }
        words.extend(paths.iter().map(OsString::from));
        self.try_run("nix-store", &words)
    }

    /// The NAR of a path as this client has it.
    pub(crate) fn dump(&self, path: &StorePath) -> Vec<u8> {
        let words = [OsString::from("--dump"), self.real(path).into_os_string()];
        run(self.program("nix-store").args(words), 180).expect_success().stdout
    }
}

/// How a process ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    what: String,
}

impl Outcome {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        assert!(self.succeeded(), "{} ended with {:?}:\n{}", self.what, self.code, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn expect_failure(self) -> Self {
        assert!(!self.succeeded(), "{} succeeded, and should not have", self.what);
        self
    }

    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.stdout).unwrap()
    }
}

/// Run to the end, or for `seconds`.
pub(crate) fn run(order: &mut Command, seconds: u32) -> Outcome {
    let what = format!("{order:?}");
    let mut bounded = command("timeout");
    bounded
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(order.get_program())
        .args(order.get_args());
    // A child sees only what its order set, never the environment of whoever runs the tests.
    bounded.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    bounded.env("HOME", "/nonexistent");
    for (key, value) in order.get_envs() {
        if let Some(value) = value {
            bounded.env(key, value);
        }
    }
    if let Some(directory) = order.get_current_dir() {
        bounded.current_dir(directory);
    }
    let output = bounded.stdin(Stdio::null()).output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        what,
    }
}

/// A directory of the test's own, on the same file system as the fixtures, so that files can be linked.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

pub(crate) fn tempdir() -> Scratch {
    let root = elsewhere().map_or(env!("CARGO_TARGET_TMPDIR").into(), |_| std::env::temp_dir());
    Scratch(tempfile::Builder::new().prefix("e2e-").tempdir_in(root).unwrap())
}

/// A directory of the test's own in memory, where there is such a place: for thousands of small files whose
/// syncs are not what is tested.
pub(crate) fn tempdir_in_memory() -> Scratch {
    let memory = tempfile::Builder::new().prefix("e2e-").tempdir_in("/dev/shm");
    memory.map_or_else(|_| tempdir(), Scratch)
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Store directories are read-only, and only root can empty those as they are.
        let _ =
            command("chmod").args(["-R", "u+w"]).arg(self.path()).stderr(Stdio::null()).status();
    }
}

fn nix_command(version: Version, name: &str, store: &Store, home: &Path) -> Command {
    fs::create_dir_all(home).unwrap();
    let mut order = command(TOOLS.join(version.suite()).join("bin").join(name));
    // Of this run alone: what an earlier one learnt of a server at some port is not true of the one that is there now.
    let cache = home.join(format!("cache-{}", std::process::id()));
    order.envs(store.environment()).env("HOME", home).env("XDG_CACHE_HOME", cache);
    order
}
