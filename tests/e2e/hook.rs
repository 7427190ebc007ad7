//! The hook under a real `nix-build`, with no server anywhere.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FlockOperation, flock};

use crate::support::{
    command,
    nix::{Outcome, Scratch, Store, run, tempdir},
};

/// A host that builds, with the hook under the name that Nix calls it by.
struct Builder {
    store: Store,
    own: Scratch,
}

impl Builder {
    fn new() -> Self {
        let own = tempdir();
        symlink(env!("CARGO_BIN_EXE_snowbank"), own.path().join("snowbank-hook")).unwrap();
        Self { store: Store::fresh(), own }
    }

    fn spool(&self) -> PathBuf {
        self.own.path().join("spool")
    }

    fn roots(&self) -> PathBuf {
        self.own.path().join("roots")
    }

    /// `nix-build` of so many derivations, each upon the one before.
    fn build(&self, name: &str, count: usize, hook: bool, spool: &Path) -> Outcome {
        let mut text = String::new();
        for number in 0..count {
            let before =
                number.checked_sub(1).map_or(String::new(), |last| format!("${{d{last}}}"));
            text += &format!(
                "d{number} = derivation {{ name = \"{name}-{number}\"; system = builtins.currentSystem;
                   builder = \"/bin/sh\"; args = [ \"-c\" \"echo {name} {number} {before} > $out\" ]; }};\n"
            );
        }
        let file = self.own.path().join(format!("{name}.nix"));
        fs::write(&file, format!("let {text} in d{}", count - 1)).unwrap();
        let mut order = self.store.program("nix-build");
        order.arg(file).args(["--no-out-link", "--option", "sandbox", "false"]);
        order.args(["--option", "substitute", "false"]);
        order.args(["--option", "build-users-group", ""]);
        if hook {
            order.args(["--option", "post-build-hook"]).arg(self.own.path().join("snowbank-hook"));
        }
        order.env("SNOWBANK_SPOOL", spool).env("SNOWBANK_ROOTS", self.roots());
        run(&mut order, 180)
    }

    fn queue(&self, words: &[&str]) -> Outcome {
        run(self.snowbank().arg("queue").args(words).env("SNOWBANK_SPOOL", self.spool()), 60)
    }

    fn snowbank(&self) -> Command {
        command(env!("CARGO_BIN_EXE_snowbank"))
    }
}

#[test]
fn what_nix_builds_while_the_server_is_away_is_queued_and_kept() {
    let host = Builder::new();
    let built = host.build("away", 3, true, &host.spool()).expect_success();
    assert!(!built.stderr.contains("snowbank"), "{}", built.stderr);
    let top = built.text().trim().to_owned();
    let listed = host.queue(&["ls", "--json"]).expect_success().text();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let entries = listed["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2]["outs"][0], top.as_str());
    assert!(entries.iter().all(|entry| entry["state"] == "waiting"));
    let drv = entries[2]["drv"].as_str().unwrap();
    assert!(drv.ends_with("-away-2.drv"), "{drv}");
    // The roots point at what was built, so that a collection that follows them would keep it.
    let mut kept: Vec<_> = fs::read_dir(host.roots())
        .unwrap()
        .map(|link| fs::read_link(link.unwrap().path()).unwrap())
        .collect();
    kept.sort();
    let mut outs: Vec<PathBuf> =
        entries.iter().map(|entry| entry["outs"][0].as_str().unwrap().into()).collect();
    outs.sort();
    assert_eq!(kept, outs);
    let why = host.queue(&["why", &top]).expect_success().text();
    assert!(why.contains(&top) && why.contains("waits for an agent"), "{why}");
    let waited = host.queue(&["wait", "--timeout", "1s"]).expect_failure();
    assert_eq!(waited.code, Some(1), "{}", waited.stderr);
    assert!(waited.stderr.contains("3 still wait"), "{}", waited.stderr);
}

#[test]
fn a_queue_that_cannot_be_written_fails_no_build_and_is_said_in_one_line() {
    let host = Builder::new();
    let file = host.own.path().join("a-file");
    fs::write(&file, "").unwrap();
    let built = host.build("broken", 2, true, &file.join("spool")).expect_success();
    let said: Vec<_> = built.stderr.lines().filter(|line| line.contains("snowbank")).collect();
    // The words of Nix name the hook too, once a build.
    let ours = said.iter().filter(|line| line.contains("not queued: ")).count();
    assert_eq!(ours, 2, "{}", built.stderr);
}

#[test]
fn a_disk_that_is_full_or_broken_fails_no_hook_and_leaves_no_half_entry() {
    let host = Builder::new();
    let built = host.build("whole", 1, false, &host.spool()).expect_success().text();
    for place in ["write", "fsync", "rename", "directory"] {
        for errno in ["ENOSPC", "EIO"] {
            let mut hook = host.snowbank();
            hook.arg("hook").env("SNOWBANK_SPOOL", host.spool()).env("OUT_PATHS", built.trim());
            hook.env("SNOWBANK_ROOTS", host.roots());
            hook.env("SNOWBANK_FAULT", format!("spool.{place}={errno}"));
            let outcome = run(&mut hook, 60).expect_success();
            assert_eq!(outcome.stderr.lines().count(), 1, "{place}: {}", outcome.stderr);
            let entries: serde_json::Value =
                serde_json::from_str(&host.queue(&["ls", "--json"]).text()).unwrap();
            let text = entries.to_string();
            assert!(!text.contains("torn"), "{place}: {text}");
        }
    }
}

#[test]
fn a_hook_that_is_told_nonsense_ends_with_0_all_the_same() {
    let host = Builder::new();
    let hook = host.own.path().join("snowbank-hook");
    for (words, outs) in [
        (vec!["--what"], Some("/nix/store/x")),
        (vec!["words"], Some("/nix/store/x")),
        (vec![], None),
        (vec![], Some("")),
        (vec![], Some("no path")),
    ] {
        let mut order = command(&hook);
        order.args(&words).env("SNOWBANK_SPOOL", host.spool()).env("SNOWBANK_ROOTS", host.roots());
        if let Some(outs) = outs {
            order.env("OUT_PATHS", outs);
        }
        let outcome = run(&mut order, 60).expect_success();
        assert_eq!(outcome.stderr.lines().count(), 1, "{words:?} {outs:?}: {}", outcome.stderr);
    }
    assert!(!host.spool().exists());
}

#[test]
fn the_hook_waits_for_nobody_who_holds_the_queue() {
    let host = Builder::new();
    host.build("first", 1, true, &host.spool()).expect_success();
    let entry = fs::read_dir(host.spool()).unwrap().map(|entry| entry.unwrap().path());
    let entry = entry.filter(|path| path.extension().is_some_and(|kind| kind == "entry"));
    let held = fs::File::open(entry.last().unwrap()).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    host.build("second", 1, true, &host.spool()).expect_success();
    let listed = host.queue(&["ls"]).expect_success().text();
    assert!(listed.contains("pushing") && listed.contains("waiting"), "{listed}");
}
