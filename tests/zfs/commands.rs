//! What the tests of the command line stand on: the program as root, or as the service user.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::e2e::nix::Store;
use crate::e2e::server::{Server, Setup};
use crate::e2e::snowbank;
use crate::support::{Pool, command, run};

/// The user of the machine that a service would run as.
pub(crate) const SERVICE: &str = "snowbank";
/// Its number, and that of its group.
pub(crate) const SERVICE_ID: u32 = 1000;

/// A data directory of its own, and a configuration that says so.
pub(crate) struct Place {
    own: tempfile::TempDir,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    /// With `settings` in the configuration, besides the data directory.
    pub(crate) fn new(settings: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        // The service user comes through it.
        run("chmod", ["755", own.path().to_str().unwrap()]);
        let place = Self { own };
        place.configure(settings);
        place
    }

    /// With a dataset of the pool for each of the `caches`, made by the command; `zfs` is said of ZFS besides.
    pub(crate) fn on(pool: &Pool, zfs: &str, caches: &str) -> Self {
        let place = Self::new(caches);
        place.init(pool);
        place.configure(&format!("[zfs]\ndataset = \"{}/snowbank\"\n{zfs}{caches}", pool.name()));
        place
    }

    pub(crate) fn configure(&self, settings: &str) {
        let data = self.data();
        let text = format!("data_dir = \"{}\"\nstore = \"none\"\n{settings}", data.display());
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.own.path().join("snowbank.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    pub(crate) fn bank(&self, cache: &str) -> PathBuf {
        self.data().join(cache)
    }

    /// Runs `snowbank WORDS` as root.
    pub(crate) fn root(&self, words: &[&str]) -> Said {
        let mut order = command(snowbank());
        order.args(words).env("SNOWBANK_CONFIG", self.config());
        Said::of(order.output().unwrap())
    }

    /// Runs `snowbank WORDS` as root at a terminal where somebody types a line; how it ended, and all that
    /// the terminal showed.
    pub(crate) fn at_a_terminal(&self, words: &[&str], typed: &str) -> (Option<i32>, String) {
        let mut order = command("script");
        let line = format!("{} {}", snowbank().display(), words.join(" "));
        order.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        order.env("SNOWBANK_CONFIG", self.config()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = order.spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{typed}").unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Runs `snowbank WORDS` as the service user, who has nothing but what was delegated.
    pub(crate) fn service(&self, words: &[&str]) -> Said {
        let mut order = as_service(&snowbank());
        order.args(words).env("SNOWBANK_CONFIG", self.config());
        Said::of(order.output().unwrap())
    }

    /// The datasets of a pool for all that the configuration says, made by the command.
    pub(crate) fn init(&self, pool: &Pool) {
        self.root(&["zfs", "init", pool.name(), "--user", SERVICE]).expect(0);
    }
}

/// A program that will run as the service user.
pub(crate) fn as_service(program: &Path) -> std::process::Command {
    let mut order = command("setpriv");
    let id = SERVICE_ID.to_string();
    order.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", "--"]);
    order.arg(program).env("PATH", "/usr/bin:/bin").env("HOME", "/tmp");
    order
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it printed; it must have ended so.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self.out
    }

    /// Why it failed, in one line; it must have.
    #[track_caller]
    pub(crate) fn refusal(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        let line = self.err.lines().last().unwrap_or_default();
        assert!(line.starts_with("snowbank: "), "{}", self.err);
        line.to_owned()
    }

    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.expect(0)).unwrap()
    }
}

/// The value of a property, as scripts get it.
pub(crate) fn property(of: &str, name: &str) -> String {
    run("zfs", ["get", "-Hp", "-o", "value", name, of]).trim().to_owned()
}

impl Place {
    /// A server on this place, as the service user.
    pub(crate) fn serve(&self) -> Server {
        self.as_service(Setup::on(&self.data()))
    }

    /// The same, for the paths of a store of its own.
    pub(crate) fn serve_for(&self, store: &Store) -> Server {
        self.as_service(Setup::on(&self.data()).bank_only(store))
    }

    fn as_service(&self, setup: Setup) -> Server {
        let become_service = format!(
            "exec setpriv --reuid {SERVICE_ID} --regid {SERVICE_ID} --clear-groups --no-new-privs -- \"$0\" \"$@\""
        );
        let setup = setup.argument("--config").argument(self.config());
        setup.after_shell(&become_service).start()
    }
}
