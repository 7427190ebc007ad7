//! Pools that are there already.

use std::fs;

use super::*;

/// A pool with a file in it, exported, on the whole disk as ZFS itself takes it.
fn precious(name: &str, disk: &Disk) -> String {
    let device = disk.path().to_str().unwrap();
    let point = tempfile::tempdir().unwrap();
    run("zpool", ["create", "-o", "cachefile=none", "-O", "mountpoint=none", name, device]);
    let mountpoint = format!("mountpoint={}", point.path().display());
    run("zfs", ["create", "-o", &mountpoint, &format!("{name}/precious")]);
    fs::write(point.path().join("file"), "precious").unwrap();
    let guid = guid(name);
    run("zpool", ["export", name]);
    settle();
    guid
}

fn guid(name: &str) -> String {
    run("zpool", ["get", "-Hp", "-o", "value", "guid", name]).trim().to_owned()
}

fn content(dataset: &str) -> String {
    run("zfs", ["mount", dataset]);
    let point = run("zfs", ["get", "-H", "-o", "value", "mountpoint", dataset]);
    let content = fs::read_to_string(Path::new(point.trim()).join("file")).unwrap();
    run("zfs", ["unmount", dataset]);
    content
}

/// Defects 5 and 7: a pool of an earlier instance, on the whole disk, exported. It was destroyed.
#[test]
fn a_pool_that_is_there_is_imported_and_what_is_in_it_is_not_touched() {
    let disk = Disk::take();
    let setup = Setup::new("there", &whole("there", &disk));
    let guid_before = precious("there", &disk);
    let ended = setup.format(&["--wipe", "cache"]).succeeded();
    assert!(ended.stdout.contains("pool there: it is there, on /dev/vd"), "{}", ended.stdout);
    assert!(ended.stdout.contains("used as it is"), "{}", ended.stdout);
    assert_eq!(guid("there"), guid_before);
    assert_eq!(content("there/precious"), "precious");
    // What was missing in it was made.
    assert!(setup.state(&disk).contains("there/default\t1048576"));
    assert_eq!(setup.history().matches("zpool create").count(), 1);
    setup.is_done();
}

#[test]
fn a_pool_of_another_name_is_refused_and_can_be_wiped_when_it_is_not_imported() {
    let disk = Disk::take();
    let setup = Setup::new("wanted", &whole("wanted", &disk));
    precious("other", &disk);
    setup
        .format(&[])
        .refused(&["partitions that the layout does not name", "the ZFS pool \"other\""]);
    setup.format(&["--wipe", "cache"]).succeeded();
    setup.is_done();
    assert_eq!(run("zpool", ["list", "-H", "-o", "name"]), "wanted\n");
    assert!(!run("zpool", ["import", "-d", "/dev/disk/by-id"]).contains("other"));
}

/// A volume that was attached to a machine that went away without a word.
#[test]
fn a_pool_that_another_machine_used_last_is_taken_over_only_when_told_so() {
    let (original, copy) = (Disk::take(), Disk::take());
    let host_id = Path::new("/sys/module/spl/parameters/spl_hostid");
    fs::write(host_id, "12345").unwrap();
    let setup = Setup::new("foreign", &whole("foreign", &copy));
    precious("foreign", &original);
    run("zpool", ["import", "-N", "-d", "/dev/disk/by-id", "-o", "cachefile=none", "foreign"]);
    run("zpool", ["sync", "foreign"]);
    // As it is on the disk while it is in use: what stays of a machine whose power is cut.
    let (from, to) =
        (format!("if={}", original.path().display()), format!("of={}", copy.path().display()));
    run("dd", [&from, &to, "bs=1M", "conv=sparse,notrunc", "status=none"]);
    run("zpool", ["destroy", "foreign"]);
    drop(original);
    fs::write(host_id, "0").unwrap();
    run("partx", ["--update", copy.path().to_str().unwrap()]);
    settle();

    let because = ["another machine used it last", "00003039", "--import-foreign foreign"];
    setup.format(&[]).refused(&because);
    setup.format(&["--wipe", "cache"]).refused(&because);
    setup.format(&["--import-foreign", "other"]).refused(&["the layout has no such pool"]);
    setup.format(&["--import-foreign", "foreign"]).succeeded();
    assert_eq!(content("foreign/precious"), "precious");
    // It is ours now.
    run("zpool", ["export", "foreign"]);
    setup.format(&[]).succeeded();
}

#[test]
fn a_pool_without_datasets_and_a_partition_without_a_pool_are_completed() {
    let disk = Disk::take();
    let setup = Setup::new("half", &both("half", &disk));
    setup.format(&[]).succeeded();
    let state = setup.state(&disk);
    run("zfs", ["destroy", "half/default"]);
    setup.format(&[]).succeeded();
    assert_eq!(setup.state(&disk), state);

    run("zpool", ["destroy", "half"]);
    // Its labels stay: a destroyed pool may be somebody's mistake, and is not taken for nothing.
    setup.format(&[]).refused(&["a part of the ZFS pool \"half\"", "--wipe cache"]);
    setup.format(&["--wipe", "cache"]).succeeded();
    assert_eq!(setup.state(&disk), state);
}

#[test]
fn a_mirror_is_one_pool_on_two_disks() {
    let (one, other) = (Disk::take(), Disk::take());
    let setup = Setup::new(
        "twins",
        &format!(
            "[disk.a]\ndevice = {:?}\n[disk.b]\ndevice = {:?}\n[pool]\nname = 'twins'\n\
             mirror = true\npartitions = ['a', 'b']\n[dataset]\n",
            one.path(),
            other.path()
        ),
    );
    setup.format(&[]).succeeded();
    let status = run("zpool", ["status", "twins"]);
    assert!(status.contains("mirror-0"), "{status}");
    setup.is_done();
}
