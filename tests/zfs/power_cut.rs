//! Power loss under load, row R4 of the reliability matrix: what `tests/zfs/power-cut` runs. A server that says which paths
//! it has taken until its power is cut, and, after the next start, somebody who looks for all of them.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{
    e2e::{
        made::closure,
        pushed::{Pusher, Stop, check_left_over, narinfos, verify as fetch_and_hold},
        server::{Server, Setup},
    },
    support::{Disk, PATIENCE, create, mountpoint, run, wait_until},
};

/// The pool that outlives the machine.
const POOL: &str = "cut";

/// How many push at once.
const PUSHERS: u64 = 4;

/// Mounts the pool, made if this is the first start of the machine with its disk. The disk is not given back.
fn mounted() -> PathBuf {
    // By the other of the two tests, in the same machine.
    if run("zpool", ["list", "-H", "-o", "name"]).lines().any(|name| name == POOL) {
        return mountpoint(POOL);
    }
    let disk = Disk::take();
    let known = run("zpool", ["import", "-d", "/dev/disk/by-id"]);
    if known.contains(&format!("pool: {POOL}\n")) {
        run("zpool", ["import", "-d", "/dev/disk/by-id", "-o", "cachefile=none", POOL]);
    } else {
        create(POOL, [disk.path()]);
        run("zfs", ["create", "-o", "recordsize=1M", &format!("{POOL}/default")]);
    }
    std::mem::forget(disk);
    mountpoint(POOL)
}

/// A server whose data, the bank and all that it remembers, lie on the pool.
fn server(pool: &Path) -> Server {
    std::fs::write(
        "/tmp/power-cut.toml",
        format!("[zfs]\ndataset = \"{POOL}\"\n[cache.default]\npush = \"open\"\n"),
    )
    .unwrap();
    Setup::on(pool)
        .argument("--store")
        .argument("none")
        .argument("--config")
        .argument("/tmp/power-cut.toml")
        .start()
}

/// Pushes closure after closure, half as stock Nix does it and half as our own client, and says of each path that it was
/// acknowledged, after it was.
fn push_for_ever(server: &Server, next: &AtomicU64) {
    let mut pusher = Pusher::to(server.address()).unwrap();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let paths = closure(number);
        let done = if number.is_multiple_of(2) {
            pusher.stock_closure(&paths)
        } else {
            pusher.native_closure(&paths)
        };
        let acknowledged = std::mem::take(&mut pusher.acknowledged);
        let mut output = std::io::stdout().lock();
        for hash in acknowledged.paths {
            writeln!(output, "ACK {hash}").unwrap();
        }
        output.flush().unwrap();
        match done {
            Ok(()) => {}
            Err(Stop::Refused(answer)) => panic!("{} {}", answer.status, answer.text()),
            Err(Stop::Gone(error)) => panic!("{error}"),
        }
    }
}

#[test]
#[ignore = "tests/zfs/power-cut runs it, and kills the machine in the midst of it"]
fn push() {
    let pool = mounted();
    let server = server(&pool);
    // Others than those of the rounds before, which are there already.
    let before = u64::try_from(narinfos(&pool.join("default")).len()).unwrap();
    let next = AtomicU64::new(before * PUSHERS);
    println!();
    thread::scope(|scope| {
        for _ in 0..PUSHERS {
            scope.spawn(|| push_for_ever(&server, &next));
        }
    });
}

#[test]
#[ignore = "tests/zfs/power-cut runs it, after it has killed the machine"]
fn verify() {
    let pool = mounted();
    let acknowledged =
        std::fs::read_to_string(std::env::var("SNOWBANK_VM_ACKNOWLEDGED").unwrap()).unwrap();
    let acknowledged: BTreeSet<_> = acknowledged.lines().collect();
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let server = server(&pool);
    let bank = pool.join("default");
    let visible = narinfos(&bank);
    let lost: Vec<_> = acknowledged.iter().filter(|hash| !visible.contains(**hash)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    // What was not acknowledged may be there, and is whole.
    let mut connection = server.connect();
    for hash in &visible {
        fetch_and_hold(&mut connection, hash, &visible);
    }
    check_left_over(&bank);
    println!("{} acknowledged, {} there and whole", acknowledged.len(), visible.len());
    server.stop();
    scrub();
}

fn scrub() {
    run("zpool", ["scrub", POOL]);
    let status = || run("zpool", ["status", POOL]);
    wait_until("the scrub is over", PATIENCE, || status().contains("scrub repaired"));
    assert!(status().contains("errors: No known data errors"), "{}", status());
}
