//! A machine that builds on another host, with a stand-in for ssh whose other host is this one.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::bench::{Bench, said, wait_until};
use crate::nix::command;

/// Runs what it is told here, in the place of there. Of a connection with a port it leads that to nowhere: the machine
/// listens at it itself.
const SSH: &str = r#"#!/usr/bin/env bash
set -eu
printf 'ssh %s\n' "$*" >>"$LOG"
[ -z "${REFUSED:-}" ] || exit 255
host='' command='' terminal=no
while [ $# -gt 0 ]; do
  case $1 in
    -o | -L) shift 2 ;;
    -tt) terminal=yes; shift ;;
    *) if [ -z "$host" ]; then host=$1; else command=$1; fi; shift ;;
  esac
done
export TMPDIR=$REMOTE
if [ $terminal = yes ]; then exec bash -c "$command"; else bash -c "$command"; fi
"#;

/// A machine; whether its sshd answers is the test's to say.
const MACHINE: &str = r#"#!/usr/bin/env bash
set -eu
: >"$NIX_DISK_IMAGE"
[ -z "${ENDS:-}" ] || exit 1
exec sleep 600
"#;

struct Builder {
    bench: Bench,
    port: String,
}

impl Builder {
    fn new() -> Self {
        let bench = Bench::new();
        bench.stand_in("ssh", SSH);
        bench.stand_in("run-builder-vm", MACHINE);
        bench.stand_in("systemd-notify", "#!/bin/sh\necho \"notify $*\" >>\"$LOG\"\n");
        fs::create_dir(bench.file("remote")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        Self { bench, port }
    }

    fn order(&self, more: &[&str]) -> Command {
        let mut order = self.bench.program("ephemeral-builder");
        let machine = self.bench.file("bin/run-builder-vm");
        order.args(["--host", "builder@far", "--machine", machine.to_str().unwrap()]);
        order.args(["--port", &self.port]).args(more).env("REMOTE", self.bench.file("remote"));
        order.stdout(Stdio::null()).stderr(Stdio::null());
        order
    }

    /// From now on the machine does.
    fn answers(&self) {
        let listener = TcpListener::bind(format!("127.0.0.1:{}", self.port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever asked may have gone.
                let _ = stream.unwrap().write_all(b"SSH-2.0-stand-in\r\n");
            }
        });
    }

    fn disks(&self) -> usize {
        let directories = fs::read_dir(self.bench.file("remote")).unwrap();
        directories
            .filter(|entry| entry.as_ref().unwrap().path().join("disk.qcow2").exists())
            .count()
    }

    fn remains(&self) -> usize {
        fs::read_dir(self.bench.file("remote")).unwrap().count()
    }
}

fn code(child: &mut Child) -> Option<i32> {
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    child.wait().unwrap().code()
}

#[test]
fn a_builder_is_ready_once_it_answers_and_leaves_nothing_when_it_is_stopped() {
    let builder = Builder::new();
    let mut child = builder.order(&[]).env("NOTIFY_SOCKET", "/x").spawn().unwrap();
    wait_until("its disk is there", || builder.disks() == 1);
    assert!(!builder.bench.log().contains("notify"), "not before it answers");
    builder.answers();
    wait_until("it is ready", || builder.bench.log().contains("notify --ready"));
    assert!(command("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(code(&mut child), Some(0));
    assert_eq!(builder.remains(), 0);
    let log = builder.bench.log();
    for part in [
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        &format!("-L 127.0.0.1:{}:127.0.0.1:30022", builder.port),
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

#[test]
fn one_that_does_not_answer_or_ends_or_cannot_be_reached_is_told_and_leaves_nothing() {
    let builder = Builder::new();
    let mut silent = builder.order(&["--wait", "1"]).spawn().unwrap();
    assert_eq!(code(&mut silent), Some(3));
    let mut ends = builder.order(&[]).env("ENDS", "yes").spawn().unwrap();
    assert_eq!(code(&mut ends), Some(1));
    let mut refused = builder.order(&[]).env("REFUSED", "yes").spawn().unwrap();
    assert_eq!(code(&mut refused), Some(1));
    assert!(!builder.bench.log().contains("notify"));
    assert_eq!(builder.remains(), 0);
}

#[test]
fn what_makes_no_sense_reaches_no_host() {
    let builder = Builder::new();
    for words in [
        &["--port", "0"][..],
        &["--port", "99999"],
        &["--host", "-oProxyCommand=reboot"],
        &["--host", "a; reboot"],
        &["--machine", "run-it"],
        &["--machine", "/x'; reboot '"],
        &["--wait", "soon"],
        &["--frobnicate", "x"],
    ] {
        let output = builder.order(words).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
    }
    assert_eq!(builder.bench.log(), "");
}
