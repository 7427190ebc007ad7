//! Disks that give back wrong bytes, none at all, or are gone, under a server that has a real pool.

use std::{fs, path::PathBuf, time::Instant};

use crate::{
    bed::{Bed, Injected, MIB, OPEN, device_of, health, random},
    e2e::{
        made::{Form, closure},
        pushed::{Pusher, check, narinfos, verify},
        server::Server,
    },
    support::{Disk, PATIENCE, run, wait_until},
};

/// Has memory forget what it holds of a pool: what is read next is read from the disk.
fn forget(bed: &Bed) {
    let pool = bed.pool.name();
    run("zpool", ["export", pool]);
    run("zpool", ["import", "-d", "/dev/disk/by-id", "-o", "cachefile=none", pool]);
}

/// The kernel's number of a mounted disk, and where its driver hangs: without it the disk is gone.
fn slot(disk: &Disk) -> PathBuf {
    let device = fs::canonicalize(disk.path()).unwrap();
    let name = device.file_name().unwrap().to_str().unwrap();
    // The disk's, which is behind that of virtio.
    fs::canonicalize(format!("/sys/block/{name}/device/..")).unwrap()
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

    fs::write(slot(&pulled).join("remove"), "1").unwrap();
    assert!(!pulled.path().exists(), "the disk is there still");
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

    fs::write("/sys/bus/pci/rescan", "1").unwrap();
    wait_until("the disk is back", PATIENCE, || pulled.path().exists());
    run("zpool", ["online", pool, pulled.path().to_str().unwrap()]);
    run("zpool", ["wait", "-t", "resilver", pool]);
    run("zpool", ["clear", pool]);
    let deadline = Instant::now() + PATIENCE;
    while health(&server).1["status"] != "ok" {
        assert!(Instant::now() < deadline, "{}\n{}", health(&server).1, status());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    check(&server, &bed.bank("default"), &pusher.acknowledged);
    server.assert_alive();
    run("zpool", ["detach", pool, pulled.path().to_str().unwrap()]);
}
