//! What the tests stand on: a real server, a real Nix, real store paths, and a client that sees every byte.

pub(crate) mod authority;
pub(crate) mod bad_disk;
pub(crate) mod bank;
pub(crate) mod browser;
pub(crate) mod ca;
pub(crate) mod fixtures;
pub(crate) mod front;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod made;
pub(crate) mod nix;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod push;
pub(crate) mod pushed;
pub(crate) mod server;
pub(crate) mod snapshots;
pub(crate) mod trees;

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Long enough for anything that works, on a loaded machine too; short enough that a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Wait until `condition` gives a value, and fail with `what` when it has not after `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Wait until `condition` holds, and fail with `what` when it does not after `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

/// The one place that starts a process.
#[expect(
    clippy::disallowed_methods,
    reason = "the ban keeps processes out of the server; these are its tests"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// The program under test: beside the tests, or where a machine that only runs them has it (`tests/zfs/payload`).
pub(crate) fn snowbank() -> PathBuf {
    elsewhere().unwrap_or_else(|| env!("CARGO_BIN_EXE_snowbank").into())
}

/// Where the program is on a machine that has nothing but the tests.
fn elsewhere() -> Option<PathBuf> {
    std::env::var_os("SNOWBANK_BIN").map(PathBuf::from)
}

/// Where the project lies.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where the tests may keep things between runs.
pub(crate) fn target() -> PathBuf {
    // CARGO_TARGET_TMPDIR is <target>/tmp, wherever the target directory has been put.
    let tmp = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().map_or(tmp.clone(), PathBuf::from)
}
