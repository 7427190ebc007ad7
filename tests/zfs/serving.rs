//! The server on real datasets: quotas and full pools (rows R9, R10 of the reliability matrix), what is taken away under
//! it (R27), disks that do not answer, and blocks that are there once.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::{Bed, Injected, MIB, OPEN, device_of, health, random, troubles, until_unhealthy},
    commands::property,
    e2e::{
        command,
        made::{Form, Made, closure},
        nix,
        prometheus::metrics_in,
        pushed::{Acknowledged, Pusher, Stop, check, narinfos, verify},
        server::Setup,
        snowbank,
    },
    support::{Disk, PATIENCE, Pool, run, wait_until},
};

/// What row R27 allows.
const NOTICED: Duration = Duration::from_secs(5);

/// The text of an answer that there is no room.
#[track_caller]
fn no_room(done: Result<(), Stop>) -> String {
    match done {
        Err(Stop::Refused(answer)) => {
            assert_eq!(answer.status, 507, "{}", answer.text());
            answer.text()
        }
        other => panic!("{other:?} where there is no room"),
    }
}

#[test]
fn r10_the_quota_is_that_of_the_dataset_and_507_says_how_much_there_is() {
    let bed = Bed::new(Disk::take(), &[("default", &["-o", "quota=12M"])]);
    let mut server = bed.start(OPEN);
    let mut pusher = Pusher::to(server.address()).unwrap();
    let first = random(1, 2 * MIB);
    pusher.stock(&first, Form::Bare).unwrap();
    let text = (2..20)
        .find_map(|seed| match pusher.stock(&random(seed, 2 * MIB), Form::Zstd) {
            Ok(()) => None,
            refused => Some(no_room(refused)),
        })
        .expect("12 MiB are full after six times two");
    assert!(text.contains("bytes are free where this cache lies"), "{text}");
    assert!(!text.contains('/'), "no path of the disk: {text}");
    // Reads go on, nothing is half there, and the dataset is named where ops look.
    check(&server, &bed.bank("default"), &pusher.acknowledged);
    wait_until("health names the dataset", PATIENCE, || {
        let (status, said) = health(&server);
        status == 200
            && said["status"] == "degraded"
            && troubles(&said).contains(&bed.dataset("default"))
    });
    let labels = format!("dataset=\"{}\"", bed.dataset("default"));
    assert_eq!(server.metric("snowbank_zfs_dataset_quota_bytes", &labels), 12.0 * MIB as f64);
    assert!(server.metric("snowbank_zfs_dataset_used_bytes", &labels) > 2.0 * MIB as f64);
    // More room, without a restart.
    run("zfs", ["set", "quota=200M", &bed.dataset("default")]);
    pusher.stock(&random(99, 2 * MIB), Form::Bare).unwrap();
    wait_until("health is well again", PATIENCE, || health(&server).1["status"] == "ok");
    server.assert_alive();
}

#[test]
fn r10_uploads_that_come_at_once_at_the_edge_of_the_quota_are_whole_or_leave_nothing() {
    const UPLOADS: usize = 32;
    const QUOTA: usize = 24 * MIB;
    let bed = Bed::new(Disk::take(), &[("default", &["-o", "quota=24M"])]);
    let mut server = bed.start(OPEN);
    let address = server.address();
    let pushes: Vec<_> = (0..)
        .take(UPLOADS)
        .map(|seed| {
            thread::spawn(move || {
                let mut pusher = Pusher::to(address).unwrap();
                let done = pusher.stock(&random(seed, MIB), Form::Bare);
                (pusher.acknowledged, done)
            })
        })
        .collect();
    let mut acknowledged = Acknowledged::default();
    let (mut refused, mut cut) = (0, 0);
    for push in pushes {
        let (theirs, done) = push.join().unwrap();
        acknowledged.paths.extend(theirs.paths);
        match done {
            Ok(()) => {}
            // Who still sends after the server has said no and read on for a while is cut off.
            Err(Stop::Gone(_)) => cut += 1,
            refusal => {
                no_room(refusal);
                refused += 1;
            }
        }
    }
    println!("{} acknowledged, {refused} refused, {cut} cut off", acknowledged.paths.len());
    assert_eq!(acknowledged.paths.len() + refused + cut, UPLOADS);
    assert!(refused > 0, "32 MiB fit into {QUOTA} bytes");
    run("zpool", ["sync", bed.pool.name()]);
    let used: usize = property(&bed.dataset("default"), "used").parse().unwrap();
    assert!(used <= QUOTA, "{used}");
    check(&server, &bed.bank("default"), &acknowledged);
    // Some were refused their narinfo only; what waits for one is whole.
    let waiting = names(&bed.bank("default").join("pending"));
    let nars = waiting.iter().filter(|name| name.ends_with(".nar"));
    for nar in nars.clone() {
        assert!(waiting.contains(&format!("{nar}.facts")), "{waiting:?}");
        let whole = fs::metadata(bed.bank("default").join("pending").join(nar)).unwrap().len();
        assert!(whole > MIB as u64, "{nar} has {whole} bytes");
    }
    assert_eq!(waiting.len(), 3 * nars.count(), "each has its facts and its listing: {waiting:?}");
    server.assert_alive();
}

#[test]
fn r9_a_full_pool_is_507_reads_go_on_and_pushes_work_again_when_there_is_room() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    // All of the pool but a little, for somebody else.
    let free: u64 = run("zfs", ["get", "-Hp", "-o", "value", "available", &bed.parent()])
        .trim()
        .parse()
        .unwrap();
    let hog = format!("{}/hog", bed.pool.name());
    run("zfs", ["create", "-o", &format!("reservation={}", free - 24 * MIB as u64), &hog]);
    let mut server = bed.start(OPEN);
    let mut pusher = Pusher::to(server.address()).unwrap();
    let first = random(1, MIB);
    pusher.stock(&first, Form::Seekable).unwrap();
    let full = (2..60).find_map(|seed| {
        let made = random(seed, 2 * MIB);
        let pushed = pusher.whole(&made, Form::Seekable).and_then(|()| pusher.commit(&[&made]));
        pushed.is_err().then(|| no_room(pushed))
    });
    full.expect("24 MiB are full after some time");
    verify(&mut server.connect(), &first.hash(), &narinfos(&bed.bank("default")));
    check(&server, &bed.bank("default"), &pusher.acknowledged);
    run("zfs", ["destroy", &hog]);
    pusher.stock(&random(100, 2 * MIB), Form::Bare).unwrap();
    server.assert_alive();
}

#[test]
fn r27_what_is_taken_away_is_503_and_never_404_and_comes_back_by_itself() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    let server = bed.start(OPEN);
    let mut pusher = Pusher::to(server.address()).unwrap();
    let paths = closure(1);
    pusher.stock_closure(&paths).unwrap();
    let dataset = bed.dataset("default");
    let here = format!("/{}.narinfo", paths[0].hash());
    let absent = "/00000000000000000000000000000000.narinfo";
    server.get(&here).expect(200);
    server.get(absent).expect(404);

    for what in ["export", "unmount"] {
        if what == "export" {
            run("zpool", ["export", "-f", bed.pool.name()]);
        } else {
            run("zfs", ["unmount", "-f", &dataset]);
        }
        let took = until_unhealthy(&server, what);
        assert!(took < NOTICED, "{what} was noticed after {took:?}");
        // Neither of them may be remembered as absent.
        assert_eq!((server.get(&here).status, server.get(absent).status), (503, 503), "{what}");
        let refused = pusher.stock(&random(7, 1000), Form::Bare);
        assert!(
            matches!(&refused, Err(Stop::Refused(answer)) if answer.status == 503),
            "{refused:?}"
        );
        if what == "export" {
            run(
                "zpool",
                ["import", "-d", "/dev/disk/by-id", "-o", "cachefile=none", bed.pool.name()],
            );
        } else {
            run("zfs", ["mount", &dataset]);
        }
        wait_until("it is served again", PATIENCE, || {
            server.get(&here).status == 200 && health(&server).0 == 200
        });
        server.get(absent).expect(404);
        // What was refused meanwhile left nothing in the directory below.
        pusher = Pusher::to(server.address()).unwrap();
        pusher.stock(&random(8, 1000), Form::Bare).unwrap();
    }

    run("zfs", ["set", "readonly=on", &dataset]);
    let took = until_unhealthy(&server, "readonly");
    assert!(took < NOTICED, "read-only was noticed after {took:?}");
    server.get(&here).expect(200);
    let refused = pusher.stock(&random(9, 1000), Form::Bare);
    assert!(matches!(&refused, Err(Stop::Refused(answer)) if answer.status >= 500), "{refused:?}");
    run("zfs", ["set", "readonly=off", &dataset]);
    wait_until("it is well again", PATIENCE, || health(&server).0 == 200);
    pusher = Pusher::to(server.address()).unwrap();
    pusher.stock(&random(9, 1000), Form::Bare).unwrap();
}

#[test]
fn a_dataset_that_is_not_mounted_when_the_server_starts_is_no_new_bank() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    let server = bed.start(OPEN);
    let paths = closure(1);
    Pusher::to(server.address()).unwrap().stock_closure(&paths).unwrap();
    server.stop();
    run("zfs", ["unmount", &bed.dataset("default")]);
    let server = bed.start(OPEN);
    let here = format!("/{}.narinfo", paths[0].hash());
    server.get(&here).expect(503);
    assert_eq!(health(&server).0, 503);
    assert_eq!(names(&bed.bank("default")), [""; 0], "nothing was made in the empty directory");
    assert!(server.log().contains(&bed.dataset("default")), "the log says what is missing");
    run("zfs", ["mount", &bed.dataset("default")]);
    wait_until("it is served", PATIENCE, || server.get(&here).status == 200);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock_closure(&closure(2)).unwrap();
    check(&server, &bed.bank("default"), &pusher.acknowledged);
}

#[test]
fn a_place_that_was_a_mount_is_no_new_bank_without_it_either() {
    // Nothing in the configuration speaks of ZFS.
    let pool = Pool::on([Disk::take()]);
    let own = tempfile::tempdir().unwrap();
    let bank = own.path().join("data/default");
    let dataset = format!("{}/x", pool.name());
    run("zfs", ["create", "-o", &format!("mountpoint={}", bank.display()), &dataset]);
    let start = || Setup::on(&own.path().join("data")).argument("--store").argument("none").start();
    start().stop();
    run("zfs", ["unmount", &dataset]);
    let server = start();
    server.get("/00000000000000000000000000000000.narinfo").expect(503);
    assert_eq!(names(&bank), [""; 0]);
    run("zfs", ["mount", &dataset]);
    wait_until("it is served", PATIENCE, || {
        server.get("/00000000000000000000000000000000.narinfo").status == 404
    });
}

#[test]
fn disks_that_do_not_answer_close_the_cache_before_requests_hang_in_it() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    let server = bed.start(&format!("zfs.probe_timeout = \"2s\"\n{OPEN}"));
    let paths = closure(1);
    Pusher::to(server.address()).unwrap().stock_closure(&paths).unwrap();
    let device = device_of(bed.pool.name());
    // Every write takes seconds, until this is dropped.
    let slow = Injected::new(&["-d", &device, "-D", "6000:2", bed.pool.name()]);
    let took = until_unhealthy(&server, "the disk is slow");
    println!("noticed after {took:?}");
    let began = Instant::now();
    server.get(&format!("/{}.narinfo", paths[0].hash())).expect(503);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(troubles(&health(&server).1).contains("have not answered"));
    assert_eq!(server.metric("snowbank_cache_well", "cache=\"default\""), 0.0);
    drop(slow);
    wait_until("it is served again", 2 * PATIENCE, || {
        health(&server).0 == 200
            && server.get(&format!("/{}.narinfo", paths[0].hash())).status == 200
    });
}

#[test]
fn a_pool_that_lost_a_disk_of_its_mirror_serves_on_and_says_so() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    let spare = Disk::take();
    let first = device_of(bed.pool.name());
    run("zpool", ["attach", "-w", bed.pool.name(), &first, spare.path().to_str().unwrap()]);
    let mut server = bed.start(OPEN);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock_closure(&closure(1)).unwrap();
    run("zpool", ["offline", "-f", bed.pool.name(), spare.path().to_str().unwrap()]);
    wait_until("health says it", PATIENCE, || {
        let (status, said) = health(&server);
        status == 200
            && said["status"] == "degraded"
            && said["pools"][bed.pool.name()] == "DEGRADED"
    });
    let labels = format!("pool=\"{}\",state=\"DEGRADED\"", bed.pool.name());
    assert_eq!(server.metric("snowbank_zfs_pool_health", &labels), 1.0);
    pusher.stock_closure(&closure(2)).unwrap();
    check(&server, &bed.bank("default"), &pusher.acknowledged);
    run("zpool", ["detach", bed.pool.name(), spare.path().to_str().unwrap()]);
    wait_until("health is well", PATIENCE, || health(&server).1["status"] == "ok");
    server.assert_alive();
}

#[test]
fn what_the_dashboard_and_the_alerts_are_about_is_exported_where_there_is_a_pool() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    run("zpool", ["scrub", "-w", bed.pool.name()]);
    let server = bed.start(OPEN);
    // The machine has no project.
    let texts = [
        include_str!("../../nixos/monitoring/dashboard.json"),
        include_str!("../../nixos/monitoring/rules.yml"),
    ];
    let names: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| metrics_in(text))
        .filter(|name| name.starts_with("snowbank_zfs_"))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        wait_until(name, PATIENCE, || {
            let text = server.get("/metrics").expect(200).text();
            text.lines().any(|line| {
                line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
            })
        });
    }
}

#[test]
fn the_page_for_people_and_top_show_the_pool_and_what_snapshots_hold() {
    let bed = Bed::new(Disk::take(), &[("default", &[])]);
    let server = bed.start(&format!("status_for = \"everybody\"\n{OPEN}"));
    let made = random(5, 8 * MIB);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock(&made, Form::Bare).unwrap();
    let dataset = format!("{}@held", bed.dataset("default"));
    run("zfs", ["snapshot", &dataset]);
    run("zfs", ["set", "quota=1G", dataset.trim_end_matches("@held")]);
    let pool = bed.pool.name();
    wait_until("the page shows the pool", PATIENCE, || {
        let page = server.get("/").expect(200).text();
        [&format!("Pool {pool}"), "ONLINE", "none that ended", "Held by snapshots", " MiB</td>"]
            .iter()
            .all(|part| page.contains(*part))
    });
    let mut order = command(snowbank());
    order.args(["top", "--once", &server.url()]);
    let text = nix::run(&mut order, 60).expect_success().text();
    let line = text.lines().find(|line| line.trim().starts_with(pool)).unwrap();
    assert!(line.contains("ONLINE") && line.contains("taken"), "{text}");
}

#[test]
fn the_same_nar_in_a_second_cache_of_the_pool_takes_no_room() {
    let bed = Bed::new(Disk::take(), &[("default", &[]), ("team", &[])]);
    let open = format!("{OPEN}[cache.team]\npush = \"open\"\n");
    let server = bed.start(&open);
    let made = random(5, 8 * MIB);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock(&made, Form::Bare).unwrap();
    run("zpool", ["sync", bed.pool.name()]);
    let saved = || -> u64 {
        run("zpool", ["sync", bed.pool.name()]);
        run("zpool", ["get", "-Hp", "-o", "value", "bclonesaved", bed.pool.name()])
            .trim()
            .parse()
            .unwrap()
    };
    assert_eq!(saved(), 0);
    wait_until("the pool was looked at", PATIENCE, || {
        server.metric("snowbank_zfs_pool_size_bytes", "pool=") > 0.0
    });
    let mut other = Team(Pusher::to(server.address()).unwrap());
    other.push(&made);
    assert!(saved() >= 8 * MIB as u64, "{} bytes were saved", saved());
    assert!(server.metric("snowbank_cloned_bytes_total", "") >= 8.0 * MIB as f64);
    wait_until("the metric of the pool has it", PATIENCE, || {
        server.metric("snowbank_zfs_pool_block_cloning_saved_bytes", "pool=") >= 8.0 * MIB as f64
    });
    // The two are two: what happens to one is nothing to the other.
    let name = format!("nar/{}.nar.zst", made.info.nar_hash.to_nix32());
    fs::remove_file(bed.bank("default").join(&name)).unwrap();
    let there = fs::read(bed.bank("team").join(&name)).unwrap();
    assert_eq!(zstd::stream::decode_all(there.as_slice()).unwrap(), made.nar);
}

/// A pusher to the cache `team`.
struct Team(Pusher);

impl Team {
    fn push(&mut self, made: &Made) {
        let nar = made.bytes(Form::Bare);
        let hash = made.info.nar_hash.to_nix32();
        let path = format!("/c/team/nar/{hash}.nar");
        let answer = self.0.ask("PUT", &path, &[], &nar).unwrap();
        assert_eq!(answer.status / 100, 2, "{}", answer.text());
        let narinfo = crate::e2e::pushed::narinfo(made, Form::Bare);
        let path = format!("/c/team/{}.narinfo", made.hash());
        let answer = self.0.ask("PUT", &path, &[], narinfo.as_bytes()).unwrap();
        assert_eq!(answer.status / 100, 2, "{}", answer.text());
    }
}

fn names(directory: &Path) -> Vec<String> {
    crate::e2e::pushed::names(directory)
}
