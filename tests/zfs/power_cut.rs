//! What `tests/zfs/power-cut` runs: a writer that says what is safe until its power is cut, and, after the next start,
//! somebody who looks for all of it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::support::{Disk, PATIENCE, create, mountpoint, run, wait_until};

/// The pool that outlives the machine.
const POOL: &str = "cut";

/// How many bytes a file has at most: several records, so that one may be written in part.
const LARGEST: usize = 300 * 1024;

/// Mounts the pool, made if this is the first start of the machine with its disk. The disk is not given back.
fn mounted() -> PathBuf {
    let disk = Disk::take();
    let known = run("zpool", ["import", "-d", "/dev/disk/by-id"]);
    if known.contains(&format!("pool: {POOL}\n")) {
        run("zpool", ["import", "-d", "/dev/disk/by-id", "-o", "cachefile=none", POOL]);
    } else {
        create(POOL, [disk.path()]);
    }
    std::mem::forget(disk);
    mountpoint(POOL)
}

/// What the file of this name holds: by its name alone, so that nothing else needs to survive.
fn content(name: &str) -> Vec<u8> {
    let seed = Sha256::digest(name);
    let length =
        usize::from(u16::from_le_bytes([seed[0], seed[1]])) * LARGEST / usize::from(u16::MAX);
    (0_u64..)
        .flat_map(|block| {
            Sha256::new().chain_update(seed).chain_update(block.to_le_bytes()).finalize()
        })
        .take(length)
        .collect()
}

/// Durable before it returns: the bytes, then the name.
fn store(directory: &Path, name: &str) {
    let partial = directory.join("partial");
    let mut file = File::create(&partial).unwrap();
    file.write_all(&content(name)).unwrap();
    file.sync_all().unwrap();
    fs::rename(&partial, directory.join(name)).unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
}

#[test]
#[ignore = "tests/zfs/power-cut runs it, and kills the machine in the midst of it"]
fn push() {
    let pool = mounted();
    let round = fs::read_dir(&pool).unwrap().count();
    let directory = pool.join(round.to_string());
    fs::create_dir(&directory).unwrap();
    File::open(&pool).unwrap().sync_all().unwrap();
    println!();
    for number in 0.. {
        store(&directory, &number.to_string());
        println!("ACK {round}/{number}");
    }
}

#[test]
#[ignore = "tests/zfs/power-cut runs it, after it has killed the machine"]
fn verify() {
    let pool = mounted();
    let acknowledged =
        fs::read_to_string(std::env::var("SNOWBANK_VM_ACKNOWLEDGED").unwrap()).unwrap();
    let acknowledged: BTreeSet<_> = acknowledged.lines().collect();
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let mut there = BTreeSet::new();
    for round in fs::read_dir(&pool).unwrap() {
        let round = round.unwrap();
        for file in fs::read_dir(round.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if name != "partial" {
                let path = round.path().join(&name);
                assert!(
                    fs::read(&path).unwrap() == content(&name),
                    "{} is damaged",
                    path.display()
                );
                there.insert(format!("{}/{name}", round.file_name().display()));
            }
        }
    }
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(**name)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    println!("{} acknowledged, {} there", acknowledged.len(), there.len());
    scrub();
}

fn scrub() {
    run("zpool", ["scrub", POOL]);
    let status = || run("zpool", ["status", POOL]);
    wait_until("the scrub is over", PATIENCE, || status().contains("scrub repaired"));
    assert!(status().contains("errors: No known data errors"), "{}", status());
}
