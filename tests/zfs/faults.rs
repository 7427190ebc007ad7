//! Disks that give back wrong bytes, none at all, or are gone, under a server that has a real pool.
use crate::{
    bed::{Bed, Injected, MIB, OPEN, device_of, health, random, until_unhealthy},
    commands::Place,
    e2e::{
        made::{Form, closure},
        pushed::{Pusher, Stop, check, narinfos, verify},
        server::Server,
    },
    support::{Disk, PATIENCE, Pool, command, run, wait_to_see, wait_until},
};

/// Has memory forget what it holds of a pool: what is read next is read from the disk.
fn forget(bed: &Bed) {
    let pool = bed.pool.name();
    run("zpool", ["export", pool]);
    run("zpool", ["import", "-d", "/dev/disk/by-id", "-o", "cachefile=none", pool]);
}

#[test]
fn wrong_checksums_under_a_nar_make_it_404_at_once_and_a_peer_heals_it() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    // A peer on another pool has the same paths.
    let peer = Bed::new(Disk::take(), &[("default", &[])]);
    let (server, peer_server) = (bed.start(OPEN), peer.start(OPEN));
    let (hit, others) = (random(1, 4 * MIB), closure(1));
    for server in [&server, &peer_server] {
        let mut pusher = Pusher::to(server.address()).unwrap();
        pusher.stock(&hit, Form::Bare).unwrap();
        pusher.stock_closure(&others).unwrap();
    }
    server.stop();
    forget(&bed);
    let bank = bed.bank("default");
    let nar = format!("nar/{}.nar.zst", hit.info.nar_hash.to_nix32());
    let file = bank.join(&nar);
    let injected =
        Injected::new(&["-t", "data", "-e", "checksum", "-f", "100", file.to_str().unwrap()]);

    let server = bed.start(OPEN);
    let narinfo = format!("/{}.narinfo", hit.hash());
    server.get(&format!("/{nar}")).expect(404);
    server.get(&format!("/nar/{}.nar", hit.hash())).expect(404);
    server.get(&narinfo).expect(404);
    verify(&mut server.connect(), &others[0].hash(), &narinfos(&bank));
    assert_eq!(health(&server).0, 200);
    let log = server.log();
    let said = log.lines().find(|line| line.contains("cannot be read")).expect("the log says it");
    assert!(said.contains(&nar) && said.contains("The pool says"), "{said}");
    assert!(said.contains(bed.pool.name()), "{said}");
    assert!(server.metric("snowbank_read_errors_total", "source=\"bank\"") >= 1.0);
    let labels = format!("kind=\"checksum\",pool=\"{}\"", bed.pool.name());
    wait_until("the pool's own count is in the metrics", PATIENCE, || {
        server.metric("snowbank_zfs_pool_errors", &labels) >= 1.0
    });
    server.stop();

    // The disk is as ill as before; the file that is put back lies elsewhere on it.
    let server = bed.start(&format!("{OPEN}heal_from = [\"{}\"]\n", peer_server.url()));
    server.get(&format!("/{nar}"));
    wait_until("the path is healed", PATIENCE, || {
        server.metric("snowbank_heals_total", "result=\"ok\"") == 1.0
    });
    server.get(&narinfo).expect(200);
    let whole = server.get(&format!("/nar/{}.nar", hit.hash())).expect(200);
    assert!(whole.body == hit.nar);
    drop(injected);
    server.stop();
    // It is on the disk, and the disk is well.
    forget(&bed);
    run("zpool", ["scrub", "-w", bed.pool.name()]);
    let server = bed.start(OPEN);
    verify(&mut server.connect(), &hit.hash(), &narinfos(&bank));
}

#[test]
fn a_disk_that_is_pulled_out_of_a_mirror_hinders_nobody_and_comes_back() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    let pulled = Disk::take();
    let (pool, first) = (bed.pool.name(), device_of(bed.pool.name()));
    run("zpool", ["attach", "-w", pool, &first, pulled.path().to_str().unwrap()]);
    let mut server: Server = bed.start(OPEN);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock_closure(&closure(1)).unwrap();

    pulled.pull();
    pusher.stock_closure(&closure(2)).unwrap();
    check(&server, &bed.bank("default"), &pusher.acknowledged);
    wait_until("health says it", PATIENCE, || {
        let (status, said) = health(&server);
        status == 200 && said["status"] == "degraded" && said["pools"][pool] == "DEGRADED"
    });
    pusher.stock_closure(&closure(3)).unwrap();
    // What is brought back before ZFS has noticed that it was gone is thrown out again.
    let status = || run("zpool", ["status", pool]);
    wait_until("ZFS has let go of the disk", PATIENCE, || status().contains("REMOVED"));

    pulled.put_back();
    // It may be told to come back while ZFS is still busy with its going.
    wait_until("the disk is in the pool again", PATIENCE, || {
        run("zpool", ["online", pool, pulled.path().to_str().unwrap()]);
        !status().contains("REMOVED")
    });
    run("zpool", ["wait", "-t", "resilver", pool]);
    run("zpool", ["clear", pool]);
    let said = || (health(&server).1["status"].to_string(), status());
    wait_to_see("health is well", said, |(health, _)| health == "\"ok\"");
    check(&server, &bed.bank("default"), &pusher.acknowledged);
    server.assert_alive();
    run("zpool", ["detach", pool, pulled.path().to_str().unwrap()]);
}

#[test]
fn a_pool_that_is_suspended_closes_its_cache_until_its_disk_is_back() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::on(&pool, "interval = \"1s\"\nprobe_timeout = \"2s\"\n", OPEN);
    let mut server = place.serve();
    let paths = closure(1);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock_closure(&paths).unwrap();
    assert_eq!(health(&server).0, 200);

    pool.disks()[0].pull();
    println!("noticed after {:?}", until_unhealthy(&server, "the disk is gone"));
    // Without its daemon for events ZFS looks for a disk only when it is told, and that ends with the trouble.
    let mut reopen = command("zpool").args(["reopen", pool.name()]).spawn().unwrap();
    let state = || health(&server).1["pools"][pool.name()].to_string();
    wait_to_see("health says that it is suspended", state, |state| state == "\"SUSPENDED\"");
    // Not 404, which a client would remember for an hour. Who hangs is given up, and fails.
    for path in [format!("/{}.narinfo", paths[0].hash()), format!("/nar/{}.nar", paths[0].hash())] {
        server.get(&path).expect(503);
    }
    match Pusher::to(server.address()).unwrap().stock(&random(1, MIB), Form::Bare) {
        Err(Stop::Refused(answer)) => answer.expect(503),
        other => panic!("{other:?}"),
    };
    let labels = format!("pool=\"{}\",state=\"SUSPENDED\"", pool.name());
    assert_eq!(server.metric("snowbank_zfs_pool_health", &labels), 1.0);
    assert_eq!(server.metric("snowbank_cache_well", "cache=\"default\""), 0.0);
    assert!(server.log().contains("SUSPENDED"), "{}", server.log());
    let doctor = place.service(&["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.out.contains("SUSPENDED"), "{doctor:?}");

    pool.disks()[0].put_back();
    run("zpool", ["clear", pool.name()]);
    assert!(reopen.wait().unwrap().success());
    wait_to_see("health is well", || health(&server), |(status, _)| *status == 200);
    pusher.stock_closure(&closure(2)).unwrap();
    check(&server, &place.bank("default"), &pusher.acknowledged);
    server.assert_alive();
}
