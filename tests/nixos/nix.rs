//! Nix, as `tests/tools/nix.sh` has it, and what it evaluates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

pub(crate) fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The one place that starts a process.
#[expect(
    clippy::disallowed_methods,
    reason = "the ban keeps processes out of the server; these are its tests"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// A program of Nix with a store of its own, which is empty and is not asked for anything.
pub(crate) fn nix(program: &str) -> Command {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let tools = project().join("target/tools");
        let mut order = command(project().join("tests/tools/nix.sh"));
        succeed(order.arg(&tools).arg("trixie"));
        fs::create_dir_all(scratch()).unwrap();
        // Several that begin a store at once are in each other's way.
        succeed(in_scratch(&tools, "nix-store").arg("--init"));
        tools
    });
    in_scratch(tools, program)
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("nixos")
}

fn in_scratch(tools: &Path, program: &str) -> Command {
    let scratch = scratch();
    let mut order = command(tools.join("trixie/bin").join(program));
    order.env("HOME", &scratch).env("XDG_CACHE_HOME", scratch.join("cache"));
    order.env("NIX_STORE_DIR", scratch.join("store")).env("NIX_STATE_DIR", scratch.join("var"));
    order.env("NIX_LOG_DIR", scratch.join("log")).env_remove("NIX_PATH");
    order
}

fn succeed(order: &mut Command) {
    let output = order.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What an expression or a file evaluates to, as it ended.
pub(crate) fn evaluate(words: &[&str], directory: &Path) -> Output {
    let mut order = nix("nix-instantiate");
    order
        .args(["--eval", "--strict", "--json"])
        .args(words)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// The example hosts of a tree, by name.
pub(crate) fn hosts_of(tree: &Path) -> Result<Value, String> {
    let output = evaluate(&["nixos/tests/hosts.nix"], tree);
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Those of this tree.
pub(crate) fn hosts() -> &'static Value {
    static HOSTS: OnceLock<Value> = OnceLock::new();
    HOSTS.get_or_init(|| hosts_of(&project()).unwrap_or_else(|error| panic!("{error}")))
}
