//! File systems and volumes.

use super::*;

fn on(label: &str, content: Option<Signature>) -> Facts {
    facts("yocto", disk("/dev/vdc", table("/dev/vdc", &[(label, content)])))
}

const MAKE: [&str; 4] = [
    "mkfs.ext4 -q -L yocto -E root_owner=30:100 /dev/disk/by-partuuid/00000001",
    "sfdisk --quiet --no-reread --part-label /dev/disk/by-id/virtio-vdc 1 snowbank-yocto",
    "udevadm settle --timeout=50",
    "wait /dev/disk/by-partlabel/snowbank-yocto",
];
const MOUNT: [&str; 2] = [
    "mkdir -p -- /var/cache/yocto",
    "mount -t ext4 -o noatime,nodev /dev/disk/by-partuuid/00000001 /var/cache/yocto",
];
const BEGIN: [&str; 2] = [
    "sfdisk --quiet --no-reread --part-label /dev/disk/by-id/virtio-vdc 1 snowbank-yocto.new",
    "udevadm settle --timeout=50",
];

/// Defect 3 was that `mkfs.ext4` was not found; here it is one of the steps, with its intent on the
/// disk before it and its result after it.
#[test]
fn a_blank_disk_becomes_a_volume_that_is_called_unfinished_until_it_is_whole() {
    let plan = planned(&volume(), &facts("yocto", disk("/dev/vdc", Surface::Blank)));
    is_harmless(&plan);
    assert_eq!(kinds(&plan), ["make-table", "make-file-system", "mount-volume"]);
    let lines = lines(&plan).join("\n");
    assert!(lines.contains("uuid=uuid-yocto, name=\"snowbank-yocto.new\""), "{lines}");
    assert!(
        lines.contains("--part-label /dev/disk/by-id/virtio-vdc 1 snowbank-yocto\n"),
        "{lines}"
    );
}

#[test]
fn a_file_system_that_was_begun_is_made_again_whatever_is_in_it() {
    let plan = planned(&volume(), &on("snowbank-yocto.new", None));
    assert_eq!(lines(&plan), [&MAKE[..], &MOUNT].concat());
    let half = on("snowbank-yocto.new", Some(signature("ext4", "")));
    let plan = planned(&volume(), &half);
    assert_eq!(lines(&plan)[0], "wipefs --quiet --all /dev/disk/by-partuuid/00000001");
    assert_eq!(lines(&plan)[3..], [&MAKE[..], &MOUNT].concat());
}

#[test]
fn a_blank_partition_of_ours_is_filled() {
    let plan = planned(&volume(), &on("snowbank-yocto", None));
    assert_eq!(lines(&plan), [&BEGIN[..], &MAKE, &MOUNT].concat());
}

#[test]
fn a_whole_file_system_is_only_mounted() {
    let plan = planned(&volume(), &on("snowbank-yocto", Some(signature("ext4", "yocto"))));
    assert_eq!(lines(&plan), MOUNT);
}

/// Defects 4 and 6: it is the disk that says what was done, so that a second run finds nothing to do.
#[test]
fn a_volume_that_is_mounted_needs_nothing() {
    let mut facts = on("snowbank-yocto", Some(signature("ext4", "yocto")));
    facts.directories.insert("/var/cache/yocto".into(), Directory::Mounted("/dev/vdc1".into()));
    assert_eq!(planned(&volume(), &facts), Plan::default());
}

#[test]
fn what_is_in_a_partition_of_ours_by_somebody_else_is_not_overwritten() {
    for other in [signature("xfs", "theirs"), signature("zfs_member", "tank")] {
        let mut facts = on("snowbank-yocto", Some(other));
        facts.members.push(member("/dev/vdc1", "tank", 3, MemberState::Active));
        let refused = refused(&volume(), &facts);
        assert!(refused[0].contains("where ext4 is expected; nothing was changed"), "{refused:?}");
        let plan = plan(&volume(), &facts, &wiping("yocto")).unwrap();
        assert_eq!(lines(&plan)[..2], BEGIN);
        assert!(lines(&plan).contains(&MAKE[0].to_owned()));
    }
}

#[test]
fn a_partition_that_is_used_is_not_formatted() {
    for (label, content) in [("snowbank-yocto.new", None), ("snowbank-yocto", None)] {
        let mut facts = on(label, content);
        let disk = facts.disks.get_mut(&name("yocto")).unwrap();
        let Surface::Gpt(table) = &mut disk.surface else { unreachable!() };
        table.partitions[0].users.push("mounted at /mnt".into());
        assert!(refused(&volume(), &facts)[0].contains("it is in use: mounted at /mnt"));
    }
}

/// Defect 1, on another file system: nothing is mounted over what somebody sees.
#[test]
fn nothing_is_mounted_over_files_or_over_another_mount() {
    let whole = || on("snowbank-yocto", Some(signature("ext4", "yocto")));
    for (directory, why) in [
        (Directory::Occupied, "is not an empty directory"),
        (
            Directory::Mounted("/dev/vdz1".into()),
            "/dev/vdz1 is mounted at /var/cache/yocto already",
        ),
    ] {
        let mut facts = whole();
        facts.directories.insert("/var/cache/yocto".into(), directory);
        let refused = refused(&volume(), &facts);
        assert!(refused[0].starts_with("volume yocto: "), "{refused:?}");
        assert!(refused[0].contains(why), "{refused:?}");
    }
}

#[test]
fn an_owner_that_is_nobody_is_refused_before_anything_is_made() {
    let mut facts = facts("yocto", disk("/dev/vdc", Surface::Blank));
    facts.owners.clear();
    let refused = refused(&volume(), &facts);
    assert!(refused[0].contains("its owner runner is no user or group"), "{refused:?}");
}

#[test]
fn a_whole_disk_of_three_partitions_is_made_in_one_run() {
    let plan = planned(&single_disk(), &facts("system", disk("/dev/vda", Surface::Blank)));
    is_harmless(&plan);
    assert_eq!(kinds(&plan), ["make-table", "make-file-system", "make-file-system", "make-pool"]);
    let lines = lines(&plan);
    let has =
        |line: &str| assert!(lines.iter().any(|other| other == line), "no {line} in {lines:#?}");
    has("mkfs.vfat -F 32 -n esp /dev/disk/by-partuuid/uuid-esp");
    has("mkfs.ext4 -q -L root -E root_owner=0:0 /dev/disk/by-partuuid/uuid-root");
    has("sfdisk --quiet --no-reread --part-label /dev/disk/by-id/virtio-vda 2 snowbank-root");
}
