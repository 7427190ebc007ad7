//! What a collection frees, and what snapshots keep of it, by the pool's own counts.

use std::time::Duration;

use crate::bed::OPEN;
use crate::commands::{Place, property};
use crate::e2e::made::Made;
use crate::e2e::pushed::Pusher;
use crate::e2e::trees::Numbers;
use crate::e2e::{PATIENCE, wait_until};
use crate::support::{Disk, Pool, run};

/// Everything goes that nobody holds.
const ALL: &str = "keep_unused = \"0s\"\nkeep_at_least = \"0s\"\ncollect_every = \"never\"\n";
/// The contents of each path, in bytes: they do not compress.
const SIZE: usize = 6 << 20;

#[test]
fn a_dry_run_says_what_returns_and_what_snapshots_holds_and_clones_keep() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::on(&pool, "", &format!("{OPEN}{ALL}"));
    let dataset = format!("{}/snowbank/default", pool.name());
    let server = place.serve();
    let mut numbers = Numbers::from(1);
    let mut push = |name: &str| {
        let made = Made::new(name, &numbers.bytes(SIZE), &[]);
        Pusher::to(server.address()).unwrap().stock_closure(&[made]).unwrap();
    };
    push("first");
    place.service(&["zfs", "snapshot", "default", "old"]).expect(0);
    push("second");
    place.service(&["zfs", "snapshot", "default", "new"]).expect(0);
    push("third");
    run("zfs", ["hold", "kept", &format!("{dataset}@new")]);
    let clone = format!("{}/a-clone", pool.name());
    run("zfs", ["clone", "-o", "canmount=noauto", &format!("{dataset}@old"), &clone]);
    run("zpool", ["sync", pool.name()]);

    let said = place.service(&["gc", "--dry-run", "--json"]).json();
    let bytes = |value: &serde_json::Value| value.as_u64().unwrap();
    let (one, said) = (SIZE as u64, &said[0]);
    let is_about = |bytes: u64, paths: u64| {
        assert!((paths * one..paths * one + one / 4).contains(&bytes), "{bytes} of {paths} paths");
    };
    assert_eq!(said["planned"], 3);
    is_about(bytes(&said["bytes"]), 3);
    is_about(bytes(&said["bytes_in_snapshots"]), 2);
    let snapshots = said["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 2, "{said}");
    assert_eq!((&snapshots[0]["name"], &snapshots[1]["name"]), (&"old".into(), &"new".into()));
    is_about(bytes(&snapshots[0]["bytes"]), 1);
    is_about(bytes(&snapshots[1]["bytes"]), 2);
    assert_eq!((&snapshots[0]["holds"], &snapshots[0]["clones"]), (&0.into(), &clone.into()));
    assert_eq!((&snapshots[1]["holds"], snapshots[1]["clones"].is_null()), (&1.into(), true));
    let table = place.service(&["gc", "--dry-run"]).expect(0);
    assert!(table.contains("return at once") && table.contains("1 holds"), "{table}");

    // What it says is what the pool says, once it goes.
    let used = || property(&dataset, "used").parse::<u64>().unwrap();
    let before = used();
    let returns = bytes(&said["bytes"]) - bytes(&said["bytes_in_snapshots"]);
    let gone = place.service(&["gc", "--json"]).json();
    assert_eq!(gone[0]["removed"], 3);
    let is_near = |freed: u64, said: u64| freed.abs_diff(said) < one / 10;
    wait_until("the pool to have freed it", PATIENCE.max(Duration::from_secs(60)), || {
        run("zpool", ["sync", pool.name()]);
        is_near(before.saturating_sub(used()), returns)
    });
    run("zfs", ["destroy", &format!("{}/a-clone", pool.name())]);
    run("zfs", ["release", "kept", &format!("{dataset}@new")]);
    run("zfs", ["destroy", &format!("{dataset}@old,new")]);
    wait_until("the pool to have freed the rest", PATIENCE.max(Duration::from_secs(60)), || {
        run("zpool", ["sync", pool.name()]);
        is_near(before.saturating_sub(used()), bytes(&said["bytes"]))
    });
}
