//! A host that builds with a real Nix, and pushes what it built with our own commands.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::{
    command,
    http::{Response, field},
    nix::{Client, Outcome, Scratch, Store, StorePath, Version, run, tempdir},
    pushed::names,
    server::{Server, Setup},
    snowbank,
};

/// What a host builds: `run` makes a derivation of a name and a script.
const PRELUDE: &str = r#"
  let run = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
    PATH = "/usr/bin:/bin";
  };
  in
"#;

/// A store that a test may change, the hook under the name that Nix calls it by, and a queue.
pub(crate) struct Host {
    pub(crate) store: Store,
    own: Scratch,
}

impl Host {
    pub(crate) fn new() -> Self {
        let own = tempdir();
        symlink(snowbank(), own.path().join("snowbank-hook")).unwrap();
        Self { store: Store::fresh(), own }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.own.path().join(name)
    }

    pub(crate) fn roots(&self) -> PathBuf {
        self.file("roots")
    }

    /// `nix-build` of an expression, which may call `run`; a list of derivations gives as many paths.
    #[track_caller]
    pub(crate) fn build(&self, expression: &str) -> Vec<StorePath> {
        self.build_with(expression, &[])
    }

    /// The same with the hook.
    #[track_caller]
    pub(crate) fn build_and_queue(&self, expression: &str) -> Vec<StorePath> {
        let hook = self.file("snowbank-hook");
        self.build_with(expression, &["--option", "post-build-hook", hook.to_str().unwrap()])
    }

    #[track_caller]
    fn build_with(&self, expression: &str, more: &[&str]) -> Vec<StorePath> {
        let file = self.file("expression.nix");
        fs::write(&file, format!("{PRELUDE}{expression}")).unwrap();
        let mut order = self.store.program("nix-build");
        order.arg(file).args(["--no-out-link", "--option", "sandbox", "false"]);
        order.args(["--option", "substitute", "false", "--option", "build-users-group", ""]);
        order.args(more).env("SNOWBANK_SPOOL", self.file("spool"));
        order.env("SNOWBANK_ROOTS", self.roots());
        run(&mut order, 180).expect_success().text().lines().map(StorePath::new).collect()
    }

    /// The one path of the closure of these that has this name.
    #[track_caller]
    pub(crate) fn named(&self, root: &StorePath, name: &str) -> StorePath {
        let closure = self.closure(std::slice::from_ref(root));
        closure.into_iter().find(|path| path.base_name()[33..] == *name).unwrap()
    }

    pub(crate) fn closure(&self, roots: &[StorePath]) -> Vec<StorePath> {
        let words: Vec<&str> =
            ["-qR"].into_iter().chain(roots.iter().map(StorePath::as_str)).collect();
        self.store.run("nix-store", &words).lines().map(StorePath::new).collect()
    }

    pub(crate) fn snowbank(&self) -> Command {
        let mut order = command(snowbank());
        order.env_clear().envs(self.store.environment());
        order.env("SNOWBANK_SPOOL", self.file("spool")).env("SNOWBANK_ROOTS", self.roots());
        order
    }

    /// `snowbank push` to `url`, with the words given.
    pub(crate) fn order_to_push(&self, url: &str, token: &str, words: &[&str]) -> Command {
        let mut order = self.snowbank();
        order.arg("push").args(words).args(["--to", url]);
        if !token.is_empty() {
            order.env("SNOWBANK_TOKEN", token);
        }
        order
    }

    pub(crate) fn push(&self, url: &str, token: &str, words: &[&str]) -> Outcome {
        run(&mut self.order_to_push(url, token, words), 120)
    }

    /// A push that goes well, and what it says of itself.
    #[track_caller]
    pub(crate) fn pushed(&self, url: &str, token: &str, words: &[&str]) -> Value {
        let words = [words, &["--json"]].concat();
        let text = self.push(url, token, &words).expect_success().text();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn queue(&self, words: &[&str]) -> Outcome {
        run(self.snowbank().arg("queue").args(words), 120)
    }

    /// Other bytes for the file at this path, which is read-only as everything in a store is.
    pub(crate) fn overwrite(path: &StorePath, bytes: &[u8]) {
        fs::remove_file(path.as_path()).unwrap();
        fs::write(path.as_path(), bytes).unwrap();
    }

    /// Another machine substitutes these with all they refer to, and has them as they are here.
    #[track_caller]
    pub(crate) fn assert_substituted(&self, server: &Server, roots: &[StorePath]) {
        let other = Client::new(Version::Current, &self.store);
        let named: Vec<&StorePath> = roots.iter().collect();
        other.copy_from(&server.url(), &server.key(), &named).expect_success();
        for path in self.closure(roots) {
            let ours = self.store.run("nix-store", &["-q", "--hash", path.as_str()]);
            let root = other.root();
            let words = ["--store", root.to_str().unwrap(), "-q", "--hash", path.as_str()];
            assert_eq!(other.run("nix-store", &words), ours, "{path:?}");
            let text = narinfo(server, &path).expect(200).text();
            assert_eq!(field(&text, "NarHash").as_deref(), Some(ours.trim()), "{path:?}");
        }
    }
}

pub(crate) fn narinfo(server: &Server, path: &StorePath) -> Response {
    server.get(&format!("/{}.narinfo", path.hash()))
}

/// Where a server keeps the paths of a host, over many starts.
pub(crate) struct Home {
    own: Scratch,
}

impl Home {
    /// `settings` are lines of `[cache.default]`.
    pub(crate) fn new(host: &Host, settings: &str) -> Self {
        let home = Self { own: tempdir() };
        fs::create_dir_all(home.bank()).unwrap();
        let info = format!("StoreDir: {}\n", host.store.directory().display());
        fs::write(home.bank().join("nix-cache-info"), info).unwrap();
        fs::write(home.config(), format!("[cache.default]\n{settings}\n")).unwrap();
        home
    }

    fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    fn config(&self) -> PathBuf {
        self.own.path().join("config.toml")
    }

    pub(crate) fn bank(&self) -> PathBuf {
        self.data().join("default")
    }

    pub(crate) fn setup(&self) -> Setup {
        let setup = Setup::on(&self.data()).argument("--store").argument("none");
        setup.argument("--config").argument(self.config())
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Server {
        self.setup().start()
    }

    pub(crate) fn snowbank(&self, words: &[&str]) -> Outcome {
        let mut order = command(snowbank());
        order.args(words).arg("--config").arg(self.config()).arg("--data-dir").arg(self.data());
        run(&mut order, 30)
    }

    /// The text of a new token.
    #[track_caller]
    pub(crate) fn token(&self, scopes: &str) -> String {
        let words = ["token", "create", "--cache", "default", "--scope", scopes];
        let words = [&words[..], &["--expires", "1d"]].concat();
        self.snowbank(&words).expect_success().text().trim().to_owned()
    }

    /// How many bytes have come of the one upload that is under way.
    #[track_caller]
    pub(crate) fn arrived(&self) -> u64 {
        let uploads = self.bank().join("uploads");
        let parts: Vec<String> =
            names(&uploads).into_iter().filter(|name| name.ends_with(".part")).collect();
        assert_eq!(parts.len(), 1, "{parts:?}");
        fs::metadata(uploads.join(&parts[0])).unwrap().len()
    }

    /// Where the NAR of a path lies.
    #[track_caller]
    pub(crate) fn nar(&self, path: &StorePath) -> PathBuf {
        let narinfo = self.bank().join(format!("{}.narinfo", path.hash()));
        let url = field(&fs::read_to_string(narinfo).unwrap(), "URL").unwrap();
        self.bank().join(url)
    }
}

/// A process that is ended with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(order: &mut Command, said: &Path) -> Self {
        let log = fs::File::create(said).unwrap();
        Self(order.stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent, with the address at which it tells how it is.
pub(crate) struct Agent {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl Agent {
    /// `order` is to listen at one address.
    pub(crate) fn start(order: &mut Command, said: &Path) -> Self {
        let mut process = Process::start(order.stdout(Stdio::piped()), said);
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap();
        let address = address.trim_start_matches("listening on http://").parse().unwrap();
        Self { _process: process, address }
    }
}
