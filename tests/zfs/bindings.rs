//! That `src/zfs` and the real programs mean the same.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snowbank::zfs::arc::ArcStats;
use snowbank::zfs::dataset::{self, Mountpoint};
use snowbank::zfs::delegation;
use snowbank::zfs::mounts::Mounts;
use snowbank::zfs::pool::{self, Health, PoolStatus, ScanState, Vdev};
use snowbank::zfs::properties::{Role, drift};
use snowbank::zfs::property::{self, Source};
use snowbank::zfs::snapshot;
use snowbank::zfs::stream::{self, Base, Receive, Send};
use snowbank::zfs::{
    Bookmark, DatasetName, HoldTag, PoolName, Snapshot, SnapshotName, SshTarget, UserName, Zfs,
    ZfsError,
};

use crate::support::{Disk, PATIENCE, Pool, run, wait_until};

/// A user without a name, who is nobody to ZFS.
const USER: &str = "4242";

fn zfs() -> Zfs {
    Zfs::find().unwrap()
}

fn root(pool: &Pool) -> DatasetName {
    DatasetName::parse(pool.name()).unwrap()
}

fn pool_name(pool: &Pool) -> PoolName {
    PoolName::parse(pool.name()).unwrap()
}

fn at(dataset: &DatasetName, name: &str) -> Snapshot {
    dataset.snapshot(&SnapshotName::parse(name).unwrap()).unwrap()
}

/// A dataset that is mounted below its pool, with some bytes in it that do not shrink.
fn filled(zfs: &Zfs, parent: &DatasetName, name: &str, bytes: usize) -> (DatasetName, PathBuf) {
    let dataset = parent.child(name).unwrap();
    zfs.run(&dataset::create(&dataset, &Role::Cache.options())).unwrap();
    zfs.run(&dataset::mount(&dataset)).unwrap();
    let found = zfs.find_dataset(&dataset).unwrap().unwrap();
    let path = found.mountpoint.path().unwrap().to_owned();
    write(&path.join("file"), bytes);
    (dataset, path)
}

/// Bytes that no compression makes fewer.
fn write(path: &Path, bytes: usize) {
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    let limited = &mut std::io::Read::take(&mut random, bytes as u64);
    std::io::copy(limited, &mut file).unwrap();
    file.sync_all().unwrap();
}

/// A directory with programs that are scripts.
struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        let scripts = Self(tempfile::tempdir().unwrap());
        // Another user has to get at them.
        std::fs::set_permissions(scripts.0.path(), PermissionsExt::from_mode(0o755)).unwrap();
        scripts
    }

    fn add(&self, name: &str, script: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// Both programs, run by [`USER`].
    fn as_user(&self) -> Zfs {
        let script = |program: &str| {
            let user = format!("--reuid {USER} --regid {USER} --clear-groups");
            self.add(program, &format!("exec setpriv {user} {program} \"$@\""))
        };
        Zfs::with_programs(script("zfs"), script("zpool"))
    }

    /// Both programs, which say that they are too old to speak JSON.
    fn without_json(&self) -> Zfs {
        let version = "[ \"$1\" = version ] && { printf 'zfs-2.1.0\\nzfs-kmod-2.1.0\\n'; exit; }";
        let script =
            |program: &str| self.add(program, &format!("{version}; exec {program} \"$@\""));
        Zfs::with_programs(script("zfs"), script("zpool"))
    }

    /// An `ssh` that goes nowhere: it runs its words by a shell, as the real one does at its far end.
    fn ssh(&self) -> PathBuf {
        let script = "while [ \"$1\" != -- ]; do shift; done; shift 2; exec /bin/sh -c \"$*\"";
        self.add("ssh", script)
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, ZfsError>) -> String {
    match result {
        Err(ZfsError::Failed { command, code: Some(code), stderr }) => {
            assert!(code != 0 && !stderr.is_empty(), "{command}: {code}: {stderr}");
            stderr
        }
        other => panic!("this was to be refused: {other:?}"),
    }
}

#[test]
fn datasets_are_made_changed_found_and_destroyed() {
    let pool = Pool::on([Disk::take()]);
    let (zfs, root) = (zfs(), root(&pool));
    let parent = root.child("snowbank").unwrap();
    let cache = parent.child("main").unwrap();
    assert_eq!(zfs.find_dataset(&parent).unwrap(), None);
    let elsewhere = DatasetName::parse("no-such-pool/a").unwrap();
    assert_eq!(zfs.find_dataset(&elsewhere).unwrap(), None);

    zfs.run(&dataset::create(&parent, &Role::Parent.options())).unwrap();
    zfs.run(&dataset::create(&cache, &Role::Cache.options())).unwrap();
    let quota = (2_u64.pow(30) + 1).to_string();
    zfs.run(&property::set(&cache, &[("quota", &quota), ("snowbank:note", "a\tb 'c'")])).unwrap();
    let found = zfs.find_dataset(&cache).unwrap().unwrap();
    assert_eq!((found.quota, found.refquota), (Some(2_u64.pow(30) + 1), None));
    assert!(!found.mounted && found.guid != 0 && found.available > 0);
    let path = pool.path().join("snowbank/main");
    assert_eq!(found.mountpoint, Mountpoint::Path(path.clone()));

    zfs.run(&dataset::mount(&cache)).unwrap();
    let mounts = Mounts::read().unwrap();
    assert_eq!(mounts.at(&path).unwrap().dataset(), Some(cache.clone()));
    assert_eq!(mounts.covering(&path.join("nar/x")).unwrap().dataset(), Some(cache.clone()));
    // The parent is none to be mounted.
    assert_eq!(mounts.at(path.parent().unwrap()), None);

    let names: Vec<_> =
        zfs.list(&parent, true).unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, [parent.clone(), cache.clone()]);
    let properties = zfs.get(&[&cache], &["snowbank:note", "atime", "used", "recordsize"]).unwrap();
    assert_eq!((properties[0].value.as_str(), &properties[0].source), ("a\tb 'c'", &Source::Local));
    assert_eq!(properties[1].source, Source::Inherited(parent.to_string()));
    assert_eq!((&properties[2].source, properties[3].value.as_str()), (&Source::Fixed, "1048576"));

    refused(zfs.run(&dataset::create(&cache, &[])));
    refused(zfs.run(&dataset::destroy(&parent, false)));
    refused(zfs.run(&property::set(&cache, &[("quota", "1K")])));
    zfs.run(&dataset::unmount(&cache)).unwrap();
    let renamed = parent.child("other").unwrap();
    zfs.run(&dataset::rename(&cache, &renamed)).unwrap();
    assert_eq!(zfs.find_dataset(&cache).unwrap(), None);
    assert_eq!(zfs.find_dataset(&renamed).unwrap().unwrap().guid, found.guid);
    zfs.run(&dataset::destroy(&parent, true)).unwrap();
    assert_eq!(zfs.find_dataset(&renamed).unwrap(), None);
}

#[test]
fn what_the_table_makes_does_not_drift_and_what_drifts_is_put_right() {
    let pool = Pool::on([Disk::take()]);
    let (zfs, root) = (zfs(), root(&pool));
    let parent = root.child("snowbank").unwrap();
    let check = |role: Role, dataset: &DatasetName| {
        drift(role, &zfs.get(&[dataset], &role.names()).unwrap())
    };
    let made = [
        (Role::Parent, parent.clone()),
        (Role::Cache, parent.child("main").unwrap()),
        (Role::State, parent.child("state").unwrap()),
        (Role::Nix, root.child("nix").unwrap()),
    ];
    for (role, dataset) in &made {
        zfs.run(&dataset::create(dataset, &role.options())).unwrap();
    }
    for (role, dataset) in &made {
        assert_eq!(check(*role, dataset), [], "{dataset}");
    }
    let cache = &made[1].1;
    zfs.run(&property::set(cache, &[("recordsize", "64K"), ("atime", "on")])).unwrap();
    let found = check(Role::Cache, cache);
    let names: Vec<_> =
        found.iter().map(|drift| (drift.wanted.name, drift.found.as_deref())).collect();
    assert_eq!(names, [("atime", Some("on")), ("recordsize", Some("65536"))]);
    for drift in found {
        assert!(drift.fixable);
        zfs.run(&property::set(cache, &[(drift.wanted.name, drift.wanted.value)])).unwrap();
    }
    assert_eq!(check(Role::Cache, cache), []);
    zfs.run(&property::inherit(cache, "atime")).unwrap();
    assert_eq!(check(Role::Cache, cache), []);
}

#[test]
fn snapshots_are_of_one_moment_and_stay_while_they_are_held() {
    let pool = Pool::on([Disk::take()]);
    let (zfs, root) = (zfs(), root(&pool));
    let (first, path) = filled(&zfs, &root, "first", 100_000);
    let (second, _) = filled(&zfs, &root, "second", 1000);
    let both = [at(&first, "one"), at(&second, "one")];
    zfs.run(&snapshot::create(&both, &[("snowbank:kind", "daily")])).unwrap();
    // All or none: the other of the two is there already.
    refused(zfs.run(&snapshot::create(&[at(&first, "two"), both[1].clone()], &[])));
    let listed = |dataset: &DatasetName| zfs.snapshots(dataset, &["snowbank:kind"]).unwrap();
    let found = [listed(&first), listed(&second)];
    assert_eq!((found[0].len(), found[1].len()), (1, 1));
    assert_eq!(found[0][0].createtxg, found[1][0].createtxg);
    assert_eq!(found[0][0].properties, [Some("daily".into())]);
    assert!(found[0][0].referenced >= 100_000 && found[0][0].creation > 1_700_000_000);
    assert_eq!(zfs.snapshots(&root, &[]).unwrap(), [], "those below are not its own");

    let tag = HoldTag::parse("release-1").unwrap();
    zfs.run(&snapshot::hold(&tag, &both)).unwrap();
    assert_eq!(listed(&first)[0].holds, 1);
    let holds = zfs.holds(&both).unwrap();
    assert_eq!(holds.iter().map(|hold| hold.tag.as_str()).collect::<Vec<_>>(), ["release-1"; 2]);
    refused(zfs.run(&snapshot::destroy(&first, &[both[0].name().clone()])));
    zfs.run(&snapshot::release(&tag, &both)).unwrap();

    std::fs::remove_file(path.join("file")).unwrap();
    let newer = [at(&first, "two"), at(&first, "three")];
    for newer in &newer {
        zfs.run(&snapshot::create(std::slice::from_ref(newer), &[])).unwrap();
    }
    let names: Vec<_> =
        listed(&first).iter().map(|found| found.snapshot.name().to_string()).collect();
    assert_eq!(names, ["one", "two", "three"]);
    refused(zfs.run(&snapshot::rollback(&both[0], false)));
    let names: Vec<_> = newer.iter().map(|newer| newer.name().clone()).collect();
    zfs.run(&snapshot::destroy(&first, &names)).unwrap();
    zfs.run(&snapshot::rollback(&both[0], false)).unwrap();
    assert_eq!(std::fs::metadata(path.join("file")).unwrap().len(), 100_000);

    let clone = root.child("clone").unwrap();
    zfs.run(&snapshot::clone(&both[0], &clone, &[("canmount", "noauto")])).unwrap();
    assert_eq!(zfs.find_dataset(&clone).unwrap().unwrap().origin, Some(both[0].to_string()));
    refused(zfs.run(&snapshot::destroy(&first, &[both[0].name().clone()])));
    zfs.run(&snapshot::promote(&clone)).unwrap();
    assert_eq!(zfs.find_dataset(&clone).unwrap().unwrap().origin, None);
    zfs.run(&snapshot::rename(&at(&clone, "one"), names.first().unwrap())).unwrap();
    assert_eq!(listed(&clone)[0].snapshot, at(&clone, "two"));
}

#[test]
fn a_stream_goes_on_from_snapshots_and_from_bookmarks() {
    let (from, to) = (Pool::on([Disk::take()]), Pool::on([Disk::take()]));
    let here = zfs();
    let scripts = Scripts::new();
    let there = here.on(SshTarget::parse("backup@elsewhere").unwrap()).with_ssh(scripts.ssh());
    let (dataset, path) = filled(&here, &root(&from), "main", 3_000_000);
    here.run(&property::set(&dataset, &[("quota", "1G")])).unwrap();
    let target = root(&to).child("main").unwrap();
    let receive = Receive {
        set: vec![("readonly".into(), "on".into()), ("snowbank:note".into(), "it's".into())],
        exclude: vec!["quota".into()],
        ..Receive::into(target.clone())
    };
    let mut sent = Vec::new();
    let mut send = |base: Option<Base>, name: &str, receive: &Receive| {
        let snapshot = at(&dataset, name);
        here.run(&snapshot::create(std::slice::from_ref(&snapshot), &[])).unwrap();
        let to = snapshot.clone();
        let send = Send::Snapshot { from: base, to, properties: true, raw: false };
        let estimate = here.estimate(&send).unwrap();
        assert_eq!(estimate.to.as_ref(), Some(&snapshot));
        let go_on = |_| ControlFlow::Continue(());
        let bytes = here.transfer(&send, &there, receive, go_on).unwrap();
        assert!(bytes.abs_diff(estimate.bytes) < 200_000, "{bytes} {estimate:?}");
        sent.push(bytes);
        let of = |zfs: &Zfs, dataset| zfs.snapshots(dataset, &[]).unwrap().pop().unwrap().guid;
        assert_eq!(of(&here, &dataset), of(&there, &target));
    };
    send(None, "one", &receive);
    let again = Receive { rollback: true, ..receive.clone() };
    write(&path.join("more"), 50_000);
    send(Some(Base::Snapshot(at(&dataset, "one"))), "two", &again);

    let mark = Bookmark::parse(&format!("{dataset}#two")).unwrap();
    here.run(&snapshot::bookmark(&at(&dataset, "two"), &mark)).unwrap();
    let names = ["one", "two"].map(|name| SnapshotName::parse(name).unwrap());
    let two = here.snapshots(&dataset, &[]).unwrap().pop().unwrap();
    here.run(&snapshot::destroy(&dataset, &names)).unwrap();
    let marks = here.bookmarks(&dataset).unwrap();
    assert_eq!((marks.len(), &marks[0].bookmark, marks[0].guid), (1, &mark, two.guid));
    std::fs::remove_file(path.join("more")).unwrap();
    send(Some(Base::Bookmark(mark.clone())), "three", &again);
    assert!(sent[0] > 3_000_000 && sent[1] < 300_000 && sent[2] < 300_000, "{sent:?}");
    here.run(&snapshot::destroy_bookmark(&mark)).unwrap();
    assert_eq!(here.bookmarks(&dataset).unwrap(), []);

    let received = there.find_dataset(&target).unwrap().unwrap();
    assert!(received.readonly && !received.mounted);
    assert_eq!((received.quota, received.receive_resume_token), (None, None));
    let note = &there.get(&[&target], &["snowbank:note", "recordsize"]).unwrap();
    assert_eq!((note[0].value.as_str(), note[1].source.clone()), ("it's", Source::Received));
    here.run(&dataset::mount(&target)).unwrap();
    let copy = received.mountpoint.path().unwrap();
    assert_eq!(
        std::fs::read(copy.join("file")).unwrap(),
        std::fs::read(path.join("file")).unwrap()
    );

    // A stream to where there is no base for it, and one of what is not there.
    let nowhere = Receive::into(root(&to).child("other").unwrap());
    let base = Some(Base::Snapshot(at(&dataset, "three")));
    here.run(&snapshot::create(&[at(&dataset, "four")], &[])).unwrap();
    let send = Send::new(base, at(&dataset, "four"));
    let broken = here.transfer(&send, &there, &nowhere, |_| ControlFlow::Continue(()));
    match broken {
        Err(ZfsError::Stream(broken)) => {
            assert_eq!(broken.receive_end.code, Some(1), "{broken}");
            assert!(!broken.receive_end.stderr.is_empty(), "{broken}");
        }
        other => panic!("{other:?}"),
    }
    let missing = Send::new(None, at(&dataset, "none"));
    refused(here.estimate(&missing));
    let broken = here.transfer(&missing, &there, &nowhere, |_| ControlFlow::Continue(()));
    assert!(matches!(broken, Err(ZfsError::Stream(_))), "{broken:?}");
    assert_eq!(here.find_dataset(&nowhere.target).unwrap(), None);
}

#[test]
fn an_interrupted_stream_goes_on_where_it_was() {
    let (from, to) = (Pool::on([Disk::take()]), Pool::on([Disk::take()]));
    let zfs = zfs();
    let (dataset, path) = filled(&zfs, &root(&from), "main", 24_000_000);
    let snapshot = at(&dataset, "one");
    zfs.run(&snapshot::create(std::slice::from_ref(&snapshot), &[])).unwrap();
    let target = root(&to).child("main").unwrap();
    let receive = Receive::into(target.clone());
    let send = Send::new(None, snapshot.clone());
    assert_eq!(zfs.resume_token(&target).unwrap(), None);

    // Some of it has arrived, and not all, when it is stopped.
    let scripts = Scripts::new();
    let half = "zfs \"$@\" >\"$0.stream\"; head -c 13000000 \"$0.stream\"; exec sleep 1000";
    let sender = scripts.add("zfs", half);
    let slow = Zfs::with_programs(sender, "/nonexistent");
    let stopped = slow.transfer(&send, &zfs, &receive, |bytes| {
        if bytes == 13_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ZfsError::Cancelled { bytes: 13_000_000, .. })), "{stopped:?}");

    let token = zfs.resume_token(&target).unwrap().unwrap();
    let resume = Send::Resume(token);
    let estimate = zfs.estimate(&resume).unwrap();
    assert_eq!(estimate.to, Some(snapshot));
    assert!(estimate.bytes < 24_000_000, "{estimate:?}");
    let bytes = zfs.transfer(&resume, &zfs, &receive, |_| ControlFlow::Continue(())).unwrap();
    assert!(bytes < 24_000_000, "{bytes}");
    let received = zfs.find_dataset(&target).unwrap().unwrap();
    assert_eq!(received.receive_resume_token, None);
    zfs.run(&dataset::mount(&target)).unwrap();
    let copy = received.mountpoint.path().unwrap();
    assert!(std::fs::read(copy.join("file")).unwrap() == std::fs::read(path.join("file")).unwrap());

    // What is left of one can be thrown away.
    let other = Receive::into(root(&to).child("other").unwrap());
    let stopped = slow.transfer(&send, &zfs, &other, |bytes| {
        if bytes == 13_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.is_err());
    assert!(zfs.resume_token(&other.target).unwrap().is_some());
    zfs.run(&stream::abort(&other.target)).unwrap();
    assert_eq!(zfs.find_dataset(&other.target).unwrap(), None);
}

/// The devices of a status in no order.
fn devices(status: &PoolStatus) -> BTreeSet<(String, usize, &'static str, u64, u64, u64)> {
    let device = |vdev: &Vdev| {
        let (name, state) = (vdev.name.clone(), vdev.health.as_str());
        (name, vdev.depth, state, vdev.read_errors, vdev.write_errors, vdev.checksum_errors)
    };
    status.vdevs.iter().map(device).collect()
}

#[test]
fn a_pool_says_the_same_in_json_and_in_text() {
    let more: Vec<Disk> = (0..4).map(|_| Disk::take()).collect();
    let pool = Pool::on([Disk::take()]);
    let name = pool_name(&pool);
    let path = |index: usize| more[index].path().to_str().unwrap();
    run("zpool", ["add", "-f", pool.name(), "log", path(0), "cache", path(1), "spare", path(2)]);
    run("zpool", ["add", "-f", pool.name(), "special", path(3)]);
    let scripts = Scripts::new();
    let (json, text) = (zfs(), scripts.without_json());

    let compare = || {
        let (json, text) = (json.status(&name).unwrap(), text.status(&name).unwrap());
        assert_eq!(devices(&json), devices(&text));
        assert_eq!((json.health, &json.message_id), (text.health, &text.message_id));
        assert_eq!((&json.message, json.error_count), (&text.message, text.error_count));
        assert_eq!(json.damaged_files, text.damaged_files);
        match (&json.scan, &text.scan) {
            (None, None) => {}
            (Some(json), Some(text)) => {
                assert_eq!(
                    (json.kind, json.state, json.errors),
                    (text.kind, text.state, text.errors)
                );
                assert_eq!(json.end, text.end);
            }
            other => panic!("{other:?}"),
        }
        json
    };
    let new = compare();
    assert_eq!((new.health, new.error_count, new.scan), (Health::Online, Some(0), None));
    assert!(new.vdevs.len() >= 6, "{:?}", new.vdevs);

    json.run(&pool::scrub(&name)).unwrap();
    wait_until("the scrub is over", PATIENCE, || {
        let scan = json.status(&name).unwrap().scan;
        scan.is_some_and(|scan| scan.state == ScanState::Finished)
    });
    let end = compare().scan.unwrap().end.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs().abs_diff(end) < 3600, "{end}");
}

#[test]
fn a_lost_file_is_named_and_the_pool_still_online() {
    let disk = Disk::take();
    let device = disk.path().to_owned();
    let pool = Pool::on([disk]);
    let (zfs, name) = (zfs(), pool_name(&pool));
    run("zfs", ["set", "compression=off", "recordsize=128K", pool.name()]);
    let victim = pool.path().join("victim");
    write(&victim, 50_000_000);
    run("zpool", ["export", pool.name()]);
    // Where the file is, and far from the labels and from the metadata, of which there are copies.
    let partition = format!("{}-part1", device.display());
    run(
        "dd",
        [
            "if=/dev/urandom",
            &format!("of={partition}"),
            "bs=1M",
            "seek=16",
            "count=24",
            "conv=notrunc,fsync",
        ],
    );
    run("zpool", ["import", "-o", "cachefile=none", "-d", "/dev/disk/by-id", pool.name()]);
    zfs.run(&pool::scrub(&name)).unwrap();
    wait_until("the scrub is over", PATIENCE, || {
        let scan = zfs.status(&name).unwrap().scan;
        scan.is_some_and(|scan| scan.state == ScanState::Finished)
    });
    let status = zfs.status(&name).unwrap();
    assert_eq!(status.health, Health::Online);
    assert!(status.damaged_files.contains(&victim.display().to_string()), "{status:?}");
    assert!(status.error_count.unwrap() > 0 && status.errors().2 > 0, "{status:?}");
    assert_eq!(status.message_id.as_deref(), Some("ZFS-8000-8A"));
    assert!(status.scan.as_ref().unwrap().errors > 0);
    let report = zfs.report(&name).unwrap();
    assert!(report.contains("victim") && report.contains("CKSUM"), "{report}");
    let text = Scripts::new().without_json().status(&name).unwrap();
    assert_eq!(text.damaged_files, status.damaged_files);
    assert_eq!(text.errors(), status.errors());
    let events = zfs.events(&name).unwrap();
    assert!(events.iter().any(|event| event.contains("scrub_finish")), "{events:?}");
}

#[test]
fn pools_tell_their_numbers() {
    let pool = Pool::on([Disk::take()]);
    let (zfs, name) = (zfs(), pool_name(&pool));
    let found = zfs.pool(&name).unwrap().unwrap();
    let guid = run("zpool", ["get", "-Hp", "-o", "value", "guid", pool.name()]);
    assert_eq!(found.guid.to_string(), guid.trim());
    assert!(found.size > 1 << 30 && found.allocated + found.free == found.size, "{found:?}");
    assert_eq!((found.health, found.readonly), (Health::Online, false));
    assert_eq!(pool::kernel_state(&name).unwrap(), Some(Health::Online));
    assert_eq!(zfs.pool(&PoolName::parse("nothing").unwrap()).unwrap(), None);
    let features = zfs.features(&name).unwrap();
    assert!(features.iter().any(|feature| feature.name == "zstd_compress"), "{features:?}");
    let arc = ArcStats::read().unwrap().unwrap();
    assert!(arc.size > 0 && arc.size <= arc.max && arc.hits > 0, "{arc:?}");

    write(&pool.path().join("a"), 3_000_000);
    zfs.run(&pool::sync(&name)).unwrap();
    std::fs::copy(pool.path().join("a"), pool.path().join("b")).unwrap();
    zfs.run(&pool::sync(&name)).unwrap();
    let clones = zfs.pool(&name).unwrap().unwrap().clones.unwrap();
    assert!(clones.saved >= 3_000_000, "{clones:?}");
}

#[test]
fn the_service_does_by_delegated_rights_what_it_has_to() {
    let pool = Pool::on([Disk::take()]);
    let (zfs, root) = (zfs(), root(&pool));
    let scripts = Scripts::new();
    let service = scripts.as_user();
    let (cache, _) = filled(&zfs, &root, "cache", 1_000_000);
    let copies = root.child("copies").unwrap();
    zfs.run(&dataset::create(&copies, &[("canmount", "off")])).unwrap();

    // Looking needs no rights.
    assert!(service.pool(&pool_name(&pool)).unwrap().is_some());
    assert_eq!(devices(&service.status(&pool_name(&pool)).unwrap()).len(), 2);
    assert_eq!(service.list(&root, true).unwrap().len(), 3);
    service.run(&pool::sync(&pool_name(&pool))).unwrap();
    let one = [at(&cache, "one")];
    refused(service.run(&snapshot::create(&one, &[])));

    let user = UserName::parse(USER).unwrap();
    let rights = [
        "snapshot", "destroy", "mount", "hold", "release", "send", "bookmark", "userprop", "quota",
    ];
    assert_eq!(zfs.missing_permissions(&user, &rights, &cache).unwrap(), rights);
    zfs.run(&delegation::allow(&user, &rights, &cache)).unwrap();
    zfs.run(&delegation::allow(
        &user,
        &["create", "mount", "receive", "destroy", "readonly"],
        &copies,
    ))
    .unwrap();
    assert_eq!(zfs.missing_permissions(&user, &rights, &cache).unwrap(), [""; 0]);
    assert_eq!(service.missing_permissions(&user, &["receive"], &cache).unwrap(), ["receive"]);

    service.run(&snapshot::create(&one, &[("snowbank:kind", "daily")])).unwrap();
    let tag = HoldTag::parse("keep").unwrap();
    service.run(&snapshot::hold(&tag, &one)).unwrap();
    assert_eq!(service.holds(&one).unwrap().len(), 1);
    service.run(&snapshot::release(&tag, &one)).unwrap();
    service.run(&property::set(&cache, &[("quota", "1G")])).unwrap();
    let send = Send::new(None, one[0].clone());
    let receive = Receive {
        set: vec![("readonly".into(), "on".into())],
        ..Receive::into(copies.child("cache").unwrap())
    };
    let bytes = service.transfer(&send, &service, &receive, |_| ControlFlow::Continue(())).unwrap();
    assert!(bytes > 1_000_000);
    refused(service.run(&dataset::mount(&receive.target)));
    service.run(&snapshot::destroy(&cache, &[one[0].name().clone()])).unwrap();
    service.run(&dataset::destroy(&receive.target, true)).unwrap();

    zfs.run(&delegation::unallow(&user, &cache)).unwrap();
    refused(service.run(&snapshot::create(&one, &[])));
}

/// Leaves commands in the kernel that nothing ends: the machine is of no use afterwards, so it is run
/// alone.
#[test]
#[ignore = "the machine is of no use afterwards"]
fn commands_on_a_pool_without_its_disk_hang_and_are_given_up() {
    let pool = std::mem::ManuallyDrop::new(Pool::on([Disk::take()]));
    let zfs = zfs();
    pool.disks()[0].pull();
    let _ = std::fs::write(pool.path().join("x"), [0; 100_000]);

    let hurried = zfs.within(Duration::from_secs(3));
    let mut hanging = 0;
    let end = Instant::now() + Duration::from_secs(240);
    let stuck = loop {
        assert!(Instant::now() < end, "{hanging} commands hang");
        match hurried.run(&pool::sync(&pool_name(&pool))) {
            Err(ZfsError::TimedOut { .. }) => {
                hanging = zfs.hanging();
            }
            Err(error @ ZfsError::Stuck { .. }) => break error,
            // Before the pool has noticed.
            Ok(()) | Err(ZfsError::Failed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        if hanging == 1 {
            // What only looks still answers.
            assert_eq!(zfs.pools().unwrap().len(), 1);
            zfs.status(&pool_name(&pool)).unwrap();
            assert!(pool::kernel_state(&pool_name(&pool)).unwrap().is_some());
        }
    };
    assert!(stuck.to_string().contains("4 commands before it hang"), "{stuck}");
}
