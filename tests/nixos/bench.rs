//! A directory with stand-ins for what programs call, which write down what they were told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::nix::{command, project};

/// Long enough for anything that works, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Bench {
    pub(crate) own: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { own: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.file("bin")).unwrap();
        bench
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.own.path().join(name)
    }

    /// A program in the place of the real one.
    pub(crate) fn stand_in(&self, name: &str, text: &str) {
        let file = self.file("bin").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A program of ours, which finds the stand-ins first.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut order = command(project().join("nixos/programs").join(name));
        let path = std::env::var("PATH").unwrap();
        order.env("PATH", format!("{}:{path}", self.file("bin").display()));
        order.env("LOG", self.file("log")).env("TMPDIR", self.own.path());
        order
    }

    /// What the stand-ins were told.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Looks again and again until it holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
