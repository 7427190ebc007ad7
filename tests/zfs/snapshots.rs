//! Snapshots by hand and by schedule, and what their views show.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use snowbank::keep::retention::Retention;
use snowbank::keep::snapshots::{Schedule, Scheduled};
use snowbank::zfs::{DatasetName, Zfs};

use crate::bed::OPEN;
use crate::commands::{Place, SERVICE_ID, as_service};
use crate::e2e::made::closure;
use crate::e2e::nix::{self, Client, Store, StorePath, Version};
use crate::e2e::pushed::{Pusher, narinfos, verify_at};
use crate::e2e::server::Server;
use crate::e2e::trees;
use crate::support::{Disk, Pool, run};

/// A pool that is initialised for a cache that anybody may push to.
fn bed() -> (Pool, Place) {
    let pool = Pool::on([Disk::take()]);
    let place = Place::on(&pool, "", OPEN);
    (pool, place)
}

/// The dataset of the cache.
fn dataset(pool: &Pool) -> DatasetName {
    format!("{}/snowbank/default", pool.name()).parse().unwrap()
}

fn snapshots(pool: &Pool) -> Vec<String> {
    let dataset = dataset(pool);
    let text = run(
        "zfs",
        ["list", "-H", "-o", "name", "-t", "snapshot", "-s", "createtxg", dataset.as_str()],
    );
    text.lines().map(|line| line.split_once('@').unwrap().1.to_owned()).collect()
}

/// Everything that a view shows is whole; gives what that is.
fn check_view(server: &Server, bank: &Path, name: &str) -> BTreeSet<String> {
    let visible = narinfos(&bank.join(".zfs/snapshot").join(name));
    let mut connection = server.connect();
    for hash in &visible {
        verify_at(&mut connection, &format!("/@{name}/"), hash, &visible);
    }
    visible
}

#[test]
fn a_snapshot_is_made_listed_and_destroyed_by_the_service_and_its_view_shows_what_was() {
    let (pool, place) = bed();
    let server = place.serve();
    let mut pusher = Pusher::to(server.address()).unwrap();
    let (before, after) = (closure(1), closure(2));
    pusher.stock_closure(&before).unwrap();

    let said = place.service(&["zfs", "snapshot", "default", "then", "--json"]).json();
    assert_eq!(said["snapshot"], format!("{}@then", dataset(&pool)));
    assert_eq!(said["url"], "http://127.0.0.1:5000/@then/");
    pusher.stock_closure(&after).unwrap();
    let shown = check_view(&server, &place.bank("default"), "then");
    assert_eq!(shown.len(), before.len());
    let late = format!("{}.narinfo", after[0].hash());
    server.get(&format!("/{late}")).expect(200);
    server.get(&format!("/@then/{late}")).expect(404);

    let unnamed = place.service(&["zfs", "snapshot", "default"]).expect(0);
    assert!(unnamed.starts_with(&format!("{}@manual-20", dataset(&pool))), "{unnamed}");
    let listed = place.service(&["zfs", "snapshots", "ls", "--json"]).json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["name"], &listed[0]["made_by"]), (&"then".into(), &"manual".into()));
    let table = place.service(&["zfs", "snapshots", "ls", "default"]).expect(0);
    assert_eq!(table.lines().count(), 3, "{table}");

    // The view was looked into, so ZFS has it mounted; that is no hindrance.
    place.service(&["zfs", "snapshots", "rm", "default", "then"]).expect(0);
    assert_eq!(snapshots(&pool).len(), 1);
    let gone = place.service(&["zfs", "snapshots", "rm", "default", "then"]).refusal();
    assert!(gone.contains("there is no snapshot"), "{gone}");
    for name in ["-r", "a b", "$(x)", "@", "%", "a/b", &"x".repeat(300)] {
        let said = place.service(&["zfs", "snapshot", "default", name]);
        assert_eq!(said.code, Some(2), "{name}: {said:?}");
    }
    let there = place.service(&["zfs", "snapshot", "nocache"]);
    assert_eq!(there.code, Some(2), "{there:?}");
}

#[test]
fn a_real_nix_substitutes_from_a_view_what_was_there_then_and_only_that() {
    let (_pool, place) = bed();
    let own = tempfile::tempdir().unwrap();
    let store = Store::fresh();
    let add = |name: &str| {
        let tree = own.path().join(name);
        trees::write(&tree.join("bin/program"), name.as_bytes());
        trees::write(&tree.join("data"), &trees::Numbers::from(1).bytes(300_000));
        store.add(&tree)
    };
    let (before, after) = (add("before"), add("after"));
    let info = place.bank("default").join("nix-cache-info");
    fs::write(&info, format!("StoreDir: {}\n", store.directory().display())).unwrap();
    std::os::unix::fs::chown(&info, Some(SERVICE_ID), Some(SERVICE_ID)).unwrap();
    let server = place.serve_for(&store);
    let push = |path: &StorePath| store.run("nix", &["copy", "--to", &server.url(), path.as_str()]);
    push(&before);
    place.service(&["zfs", "snapshot", "default", "then"]).expect(0);
    push(&after);
    let view = format!("{}/@then", server.url());
    let client = Client::new(Version::Current, &store);
    client.copy_from(&view, &server.key(), &[&before]).expect_success();
    assert_eq!(client.dump(&before), dump(&store, &before));
    client.realise(&view, &server.key(), &[&after]).expect_failure();
    assert!(!client.real(&after).exists());
    client.realise(&server.url(), &server.key(), &[&after]).expect_success();
    assert_eq!(client.dump(&after), dump(&store, &after));
    // And nothing can be pushed into what was.
    let words = ["copy", "--to", &view, after.as_str()];
    client.try_run("nix", &words).expect_failure();
}

/// The NAR of a path in the store that it comes from.
fn dump(store: &Store, path: &StorePath) -> Vec<u8> {
    nix::run(store.program("nix-store").args(["--dump", path.as_str()]), 180)
        .expect_success()
        .stdout
}

#[test]
fn a_snapshot_amid_pushes_is_one_in_which_everything_is_whole() {
    let (_pool, place) = bed();
    let server = place.serve();
    let over = AtomicBool::new(false);
    let mut names = Vec::new();
    std::thread::scope(|scope| {
        for lane in 0..2_u64 {
            let (server, over) = (&server, &over);
            scope.spawn(move || {
                let mut pusher = Pusher::to(server.address()).unwrap();
                for number in 0.. {
                    let paths = closure(100 * lane + number);
                    match lane {
                        0 => pusher.stock_closure(&paths).unwrap(),
                        _ => pusher.native_closure(&paths).unwrap(),
                    }
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for number in 0..6 {
            let name = format!("amid-{number}");
            place.service(&["zfs", "snapshot", "default", &name]).expect(0);
            names.push(name);
        }
        over.store(true, Ordering::Relaxed);
    });
    let shown: Vec<_> =
        names.iter().map(|name| check_view(&server, &place.bank("default"), name).len()).collect();
    assert!(
        shown.is_sorted() && shown.first() < shown.last(),
        "nothing came in between: {shown:?}"
    );
}

#[test]
fn the_schedule_makes_what_is_due_and_keeps_to_its_rules() {
    let (pool, place) = bed();
    let dataset = dataset(&pool);
    place.service(&["zfs", "snapshot", "default", "mine"]).expect(0);
    run("zfs", ["snapshot", &format!("{dataset}@auto-theirs")]);
    let hour = Duration::from_secs(3600);
    let scheduled = |retention| {
        let (cache, dataset) = ("default".to_owned(), dataset.clone());
        Schedule::new(
            Zfs::find().unwrap(),
            vec![Scheduled { cache, dataset, every: hour, retention }],
        )
    };
    let now = Timestamp::now();
    let later = |hours| now + hour * hours;

    let all = scheduled(Retention::default());
    let round = all.round(now);
    assert!(round.failures.is_empty(), "{:?}", round.failures);
    assert_eq!(round.made.len(), 1);
    assert!(all.round(now).made.is_empty(), "one is enough");
    assert_eq!(scheduled(Retention::default()).round(now).made.len(), 0, "after a restart as well");
    run("zfs", ["hold", "keep", &round.made[0].to_string()]);
    // What was made now is an hour old to whoever comes later.
    for hours in [2, 3] {
        assert_eq!(all.round(later(hours)).made.len(), 1);
    }
    assert_eq!(snapshots(&pool).len(), 5);

    // Held ones stay, and those of others.
    let one = scheduled(Retention { last: 1, ..Retention::default() });
    let round = one.round(now);
    assert_eq!(round.destroyed.len(), 1, "{round:?}");
    let left = snapshots(&pool);
    assert_eq!(left.len(), 4, "{left:?}");
    assert_eq!(left[..2], ["mine", "auto-theirs"]);
    // A view that is looked at is let go of as well.
    let looked = place.bank("default").join(".zfs/snapshot").join(&left[3]);
    let listing = as_service("/bin/ls".as_ref()).arg(looked).output().unwrap();
    assert!(listing.status.success());
    assert_eq!(one.round(later(4)).destroyed.len(), 1);
}
