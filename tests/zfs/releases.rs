//! `snowbank release`: what is released stays, whatever happens to the cache.

use std::fs;

use crate::bed::OPEN;
use crate::commands::{Place, property};
use crate::e2e::made::closure;
use crate::e2e::pushed::{Pusher, narinfos, verify_at};
use crate::support::{Disk, Pool, command, run};

#[test]
fn a_release_is_made_by_the_service_is_served_cannot_be_destroyed_and_goes_when_it_is_removed() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::on(&pool, "", OPEN);
    let snapshot = format!("{}/snowbank/default@release-1.0", pool.name());
    let server = place.serve();
    let paths = closure(1);
    Pusher::to(server.address()).unwrap().stock_closure(&paths).unwrap();

    let made = place.service(&["release", "create", "1.0"]).expect(0);
    assert!(made.starts_with(&format!("{snapshot}, {} paths pinned\n", paths.len())), "{made}");
    assert_eq!(property(&snapshot, "userrefs"), "1");
    assert_eq!(property(&snapshot, "snowbank:made-by"), "release");
    let root = place.root(&["zfs", "snapshots", "rm", "default", "release-1.0"]).refusal();
    assert!(root.contains("snowbank release rm 1.0"), "{root}");
    assert!(!command("zfs").args(["destroy", &snapshot]).status().unwrap().success());
    let again = place.service(&["release", "create", "1.0"]).refusal();
    assert!(again.contains("has a release 1.0 already"), "{again}");

    // The live cache may lose everything.
    let bank = place.bank("default");
    let visible = narinfos(&bank);
    for hash in &visible {
        fs::remove_file(bank.join(format!("{hash}.narinfo"))).unwrap();
    }
    let mut connection = server.connect();
    for hash in &visible {
        verify_at(&mut connection, "/@release-1.0/", hash, &visible);
    }
    let listed = place.service(&["release", "ls", "--json"]).json();
    assert_eq!((&listed[0]["name"], &listed[0]["held"]), (&"1.0".into(), &true.into()), "{listed}");
    assert_eq!(listed[0]["pinned_paths"], paths.len());
    assert_eq!(listed[0]["url"], "http://127.0.0.1:5000/@release-1.0/");

    place.service(&["release", "rm", "1.0"]).expect(0);
    assert_eq!(run("zfs", ["list", "-H", "-t", "snapshot", "-r", pool.name()]), "");
    assert_eq!(place.service(&["release", "ls", "--json"]).json(), serde_json::json!([]));
    let gone = place.service(&["release", "rm", "1.0"]).refusal();
    assert!(gone.contains("has no release 1.0"), "{gone}");
}

#[test]
fn a_release_pins_what_is_named_and_refuses_what_is_not_here() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::on(&pool, "", OPEN);
    let server = place.serve();
    let paths = closure(1);
    Pusher::to(server.address()).unwrap().stock_closure(&paths).unwrap();
    let hash = paths[0].hash();
    place.service(&["release", "create", "one", &hash]).expect(0);
    assert_eq!(place.service(&["release", "ls", "--json"]).json()[0]["pinned_paths"], 1);
    let absent = "00000000000000000000000000000000";
    let refused = place.service(&["release", "create", "none", absent]).refusal();
    assert!(refused.contains(absent), "{refused}");
    for name in ["-r", "a b", "$(x)", "a/b", "@", "%", &"x".repeat(300)] {
        let said = place.service(&["release", "create", name]);
        assert_eq!(said.code, Some(2), "{name}: {said:?}");
    }
    assert_eq!(place.service(&["release", "ls", "--json"]).json().as_array().unwrap().len(), 1);
}
