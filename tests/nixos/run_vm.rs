//! A host as a virtual machine, with a stand-in for the machine itself.

use std::fs;
use std::process::Stdio;

use crate::bench::{Bench, said, wait_until};
use crate::nix::command;

/// A machine that writes down how it was started, and is on for as long as it should be.
const MACHINE: &str = r#"#!/usr/bin/env bash
set -eu
echo "disk $NIX_DISK_IMAGE" >>"$LOG"
echo "net $QEMU_NET_OPTS" >>"$LOG"
echo "opts $QEMU_OPTS" >>"$LOG"
echo "tmp $TMPDIR" >>"$LOG"
: >"$NIX_DISK_IMAGE"
: >"$TMPDIR/scratch"
trap 'echo stopped >>"$LOG"; exit 9' TERM
echo on >>"$LOG"
for _ in $(seq "${STAYS:-0}"); do sleep 0.1; done
exit 3
"#;

fn bench() -> (Bench, String) {
    let bench = Bench::new();
    bench.stand_in("run-host-vm", MACHINE);
    let machine = bench.file("bin/run-host-vm").to_str().unwrap().to_owned();
    (bench, machine)
}

fn told(bench: &Bench, what: &str) -> String {
    let log = bench.log();
    let line = log.lines().find_map(|line| line.strip_prefix(&format!("{what} ")));
    line.unwrap_or_else(|| panic!("no {what} in {log}")).to_owned()
}

#[test]
fn what_is_temporary_is_removed_and_what_the_caller_has_is_not() {
    let (bench, machine) = bench();
    fs::write(bench.file("of-the-caller"), "").unwrap();
    let output = bench.program("run-vm").args(["--port", "2222:22", &machine]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "as the machine ended: {}", said(&output));
    assert_eq!(told(&bench, "net"), "hostfwd=tcp:127.0.0.1:2222-:22", "on loopback alone");
    assert!(told(&bench, "opts").contains("accel=kvm:tcg"));
    let own = told(&bench, "tmp");
    assert_ne!(own, bench.own.path().to_str().unwrap());
    assert!(!std::path::Path::new(&own).exists());
    assert!(bench.file("of-the-caller").exists(), "TMPDIR is the caller's own");
}

#[test]
fn a_disk_that_was_named_stays() {
    let (bench, machine) = bench();
    let disk = bench.file("disk.qcow2");
    let words = ["--disk", disk.to_str().unwrap(), &machine];
    assert_eq!(bench.program("run-vm").args(words).status().unwrap().code(), Some(3));
    assert!(disk.exists());
}

#[test]
fn told_to_stop_it_stops_the_machine_and_cleans_up() {
    let (bench, machine) = bench();
    let mut order = bench.program("run-vm");
    order.arg(&machine).env("STAYS", "600").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = order.spawn().unwrap();
    wait_until("the machine is on", || bench.log().contains("\non\n"));
    assert!(command("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(bench.log().ends_with("stopped\n"), "{}", bench.log());
    assert!(!std::path::Path::new(&told(&bench, "tmp")).exists());
}

#[test]
fn what_makes_no_sense_starts_nothing() {
    let (bench, machine) = bench();
    for words in [
        &[][..],
        &["/nonexistent"],
        &["--port", "x", &machine],
        &["--port"],
        &["--disk", "/nonexistent/disk", &machine],
        &["--frobnicate", &machine],
    ] {
        let output = bench.program("run-vm").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
    }
    assert_eq!(bench.log(), "");
}
