//! The tables of the disks.

use super::*;

#[test]
fn a_blank_disk_becomes_the_pool_and_is_marked_while_its_table_is_written() {
    let plan = planned(&dedicated(), &facts("cache", disk("/dev/vdb", Surface::Blank)));
    is_harmless(&plan);
    assert_eq!(kinds(&plan), ["make-table", "make-pool", "make-dataset"]);
    let d = "/dev/disk/by-id/virtio-vdb";
    assert_eq!(
        lines(&plan),
        [
            &format!(
                "dd of={d} bs=4096 count=1 seek=255 oflag=direct conv=sync,notrunc,fsync status=none \
                 <<'END'\nsnowbank format is partitioning this disk as cache\nEND"
            ),
            "udevadm settle --timeout=50",
            &format!(
                "sfdisk --quiet --no-reread --wipe never --wipe-partitions never {d} <<'END'\n\
                 label: gpt\n\
                 1: start=1MiB, size=10238MiB, type=6A898CC3-1DD2-11B2-99A6-080020736631, \
                 uuid=uuid-cache, name=\"snowbank-cache\"\nEND"
            ),
            &format!("partx --update {d}"),
            "udevadm settle --timeout=50",
            "wait /dev/disk/by-partuuid/uuid-cache",
            &format!(
                "dd if=/dev/zero of={d} bs=4096 count=1 seek=255 oflag=direct conv=notrunc,fsync \
                 status=none"
            ),
            "udevadm settle --timeout=50",
            "zpool create -o ashift=12 -o autotrim=on -o cachefile=none -O atime=off -O xattr=sa \
             -O acltype=posixacl -O dnodesize=auto -O compression=zstd -O canmount=off \
             -O mountpoint=none cache /dev/disk/by-partuuid/uuid-cache",
            "zfs create -u -o recordsize=1M -o mountpoint=/srv/a cache/a",
            "zfs mount cache/a",
        ]
    );
}

/// Defect 8: `blkid` failing for a device that is not there was read as blank.
#[test]
fn a_disk_that_is_not_there_is_not_blank() {
    let missing = Facts { host_id: HOST, ..Facts::default() };
    let refusals = plan(&dedicated(), &missing, &wiping("cache")).unwrap_err();
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].is_absence);
    assert_eq!(refusals[0].to_string(), "disk cache: not there after 60s");
}

#[test]
fn an_optional_disk_that_is_not_there_is_left_out_with_its_volume() {
    let text = "[disk.cache]\nserial = 'c'\n[pool]\nname = 'cache'\npartitions = ['cache']\n[dataset]\n\
                [disk.yocto]\nserial = 'y'\noptional = true\nwait = '2s'\n\
                [volume.yocto]\npartition = 'yocto'\nmountpoint = '/var/cache/yocto'";
    let plan = planned(&layout(text), &facts("cache", disk("/dev/vdb", Surface::Blank)));
    assert_eq!(kinds(&plan), ["make-table", "make-pool"]);
    assert!(plan.notes[0].contains("disk yocto: not there after 2s"), "{:?}", plan.notes);
}

/// Defect 5 and 8: whatever is on a disk keeps it from being touched, and is named.
#[test]
fn a_disk_with_any_signature_is_refused_and_what_is_on_it_is_named() {
    let lvm = signature("LVM2_member", "");
    let gpt = |partitions| table("/dev/vdb", partitions);
    let cases = [
        (
            Surface::Signed(vec![signature("ext4", "precious")]),
            "it holds ext4 labelled \"precious\"",
        ),
        (Surface::Signed(vec![lvm.clone()]), "it holds LVM2_member"),
        (Surface::Signed(vec![signature("dos", "")]), "it holds a partition table (dos)"),
        (Surface::Signed(vec![signature("PMBR", "")]), "it holds a partition table (PMBR)"),
        (
            Surface::Signed(vec![signature("ext4", ""), signature("swap", "s")]),
            "it holds ext4 and swap labelled \"s\"",
        ),
        (
            Surface::Signed(vec![signature("zfs_member", "tank")]),
            "it holds a part of the ZFS pool \"tank\"",
        ),
        (Surface::Unknown, "its first and last MiB are not zero"),
        (gpt(&[]), "an empty partition table"),
        (
            gpt(&[("", None), ("data", Some(signature("ext4", "d")))]),
            "the layout does not name: /dev/vdb1, /dev/vdb2 \"data\" with ext4 labelled \"d\"",
        ),
        (
            gpt(&[("snowbank-cache", None), ("mine", None)]),
            "the layout does not name: /dev/vdb2 \"mine\"",
        ),
    ];
    for (surface, named) in cases {
        let mut facts = facts("cache", disk("/dev/vdb", surface));
        facts.members.push(member("/dev/vdb", "tank", 5, MemberState::Exported));
        let refused = refused(&dedicated(), &facts);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].starts_with("disk cache (/dev/vdb): "), "{refused:?}");
        assert!(refused[0].contains(named), "{refused:?} without {named}");
        assert!(refused[0].contains("nothing was changed"), "{refused:?}");
        assert!(refused[0].contains("`--wipe cache` destroys everything"), "{refused:?}");

        let plan = plan(&dedicated(), &facts, &wiping("cache")).unwrap();
        assert_eq!(kinds(&plan), ["wipe", "make-table", "make-pool", "make-dataset"], "{named}");
    }
}

#[test]
fn a_permission_for_another_disk_is_none() {
    let facts = facts("cache", disk("/dev/vdb", Surface::Unknown));
    assert_eq!(refused_with(&dedicated(), &facts, &wiping("other")).len(), 1);
}

#[test]
fn wiping_takes_signatures_and_both_ends_away_and_is_looked_at_before_anything_is_made() {
    let surface =
        table("/dev/vdb", &[("zfs-1", Some(signature("zfs_member", "tank"))), ("", None)]);
    let plan =
        plan(&dedicated(), &facts("cache", disk("/dev/vdb", surface)), &wiping("cache")).unwrap();
    let d = "/dev/disk/by-id/virtio-vdb";
    let zero = |device: &str, start: u64| {
        format!(
            "dd if=/dev/zero of={device} bs=1M count=1 seek={start} oflag=seek_bytes \
             conv=notrunc,fsync status=none"
        )
    };
    assert_eq!(
        lines(&plan)[..6],
        [
            "wipefs --quiet --all /dev/vdb1".into(),
            zero("/dev/vdb1", 0),
            zero("/dev/vdb1", GIB - MIB),
            format!("wipefs --quiet --all {d}"),
            zero(d, 0),
            zero(d, 10 * GIB - MIB),
        ]
    );
    let provisional: Vec<_> = plan.steps.iter().map(|step| step.provisional).collect();
    assert_eq!(provisional, [false, true, true, true]);
}

#[test]
fn a_disk_that_somebody_uses_is_not_wiped() {
    for surface in [Surface::Unknown, table("/dev/vdb", &[("data", Some(signature("ext4", "d")))])]
    {
        let mut disk = disk("/dev/vdb", surface);
        disk.users.push("/dev/vdb1 is mounted at /home".into());
        let refused = refused_with(&dedicated(), &facts("cache", disk), &wiping("cache"));
        assert_eq!(refused, ["disk cache (/dev/vdb): it is in use: /dev/vdb1 is mounted at /home"]);
    }
    let mut disk = disk("/dev/vdb", Surface::Blank);
    disk.users.push("somebody has it open for himself".into());
    assert!(refused(&dedicated(), &facts("cache", disk))[0].contains("it is in use"));
}

#[test]
fn the_pool_that_the_layout_names_is_never_wiped() {
    let surface = table("/dev/vdb", &[("a", Some(signature("zfs_member", "cache"))), ("b", None)]);
    let mut single = facts("system", disk("/dev/vdb", surface));
    single.members.push(member("/dev/vdb1", "cache", 5, MemberState::Active));
    let refused = refused_with(&single_disk(), &single, &wiping("system"));
    assert!(
        refused[0].contains("--wipe does not destroy the pool cache on /dev/vdb1"),
        "{refused:?}"
    );
}

#[test]
fn a_disk_that_cannot_be_written_to_is_refused() {
    let mut disk = disk("/dev/vdb", Surface::Blank);
    disk.read_only = true;
    let refused = refused(&dedicated(), &facts("cache", disk));
    assert_eq!(refused, ["disk cache (/dev/vdb): it cannot be written to"]);
}

#[test]
fn a_disk_that_is_too_small_is_refused() {
    let mut disk = disk("/dev/vdb", Surface::Blank);
    disk.size = GIB;
    let refused = refused(&single_disk(), &facts("system", disk));
    assert!(
        refused[0].contains("no room for the partition root: it needs 2048 MiB"),
        "{refused:?}"
    );
}

/// Everything that a killed `sfdisk` can leave, as recorded in a machine.
#[test]
fn a_table_that_was_begun_is_written_again_only_where_our_mark_is() {
    let halves = [
        Surface::Blank,
        Surface::Unknown,
        Surface::Signed(vec![signature("gpt", "")]),
        Surface::Signed(vec![signature("PMBR", "")]),
        Surface::Signed(vec![signature("gpt", ""), signature("PMBR", "")]),
        table("/dev/vdb", &[]),
        table("/dev/vdb", &[("snowbank-cache", None)]),
    ];
    for surface in halves {
        let mut disk = disk("/dev/vdb", surface);
        disk.marked = true;
        let plan = planned(&dedicated(), &facts("cache", disk));
        is_harmless(&plan);
        assert_eq!(kinds(&plan), ["make-table", "make-pool", "make-dataset"]);
        assert!(lines(&plan)[0].starts_with("sfdisk "), "the mark is there already");
        assert!(lines(&plan)[4].starts_with("dd if=/dev/zero "), "and is taken away");
    }
    let others = [
        Surface::Signed(vec![signature("ext4", "x")]),
        Surface::Signed(vec![signature("gpt", ""), signature("ext4", "x")]),
        Surface::Signed(vec![signature("dos", "")]),
        table("/dev/vdb", &[("somebody", None)]),
    ];
    for surface in others {
        let mut disk = disk("/dev/vdb", surface);
        disk.marked = true;
        assert!(refused(&dedicated(), &facts("cache", disk))[0].contains("nothing was changed"));
    }
}

#[test]
fn on_a_running_system_only_what_is_missing_is_made_in_free_space() {
    let there = [
        ("snowbank-esp", Some(signature("vfat", "ESP"))),
        ("snowbank-root", Some(signature("ext4", "root"))),
    ];
    let mut disk = disk("/dev/vda", table("/dev/vda", &there));
    disk.users.push("/dev/vda2 is mounted at /".into());
    let plan = planned(&single_disk(), &facts("system", disk));
    is_harmless(&plan);
    assert_eq!(kinds(&plan), ["add-partitions", "make-pool"]);
    let d = "/dev/disk/by-id/virtio-vda";
    assert_eq!(
        lines(&plan)[..2],
        [
            format!(
                "sfdisk --quiet --append --no-reread --wipe never --wipe-partitions never {d} \
                 <<'END'\n3: start=2049MiB, size=8190MiB, \
                 type=6A898CC3-1DD2-11B2-99A6-080020736631, uuid=uuid-pool, \
                 name=\"snowbank-pool\"\nEND"
            ),
            format!("partx --update {d}"),
        ]
    );
}

#[test]
fn the_copy_of_the_table_follows_the_end_of_a_disk_that_has_grown() {
    let there = [
        ("snowbank-esp", Some(signature("vfat", ""))),
        ("snowbank-root", Some(signature("ext4", ""))),
    ];
    let Surface::Gpt(mut table) = table("/dev/vda", &there) else { unreachable!() };
    table.disk_has_grown = true;
    let plan = planned(&single_disk(), &facts("system", disk("/dev/vda", Surface::Gpt(table))));
    assert!(lines(&plan)[0].contains("--relocate gpt-bak-std"), "{:?}", lines(&plan));
}

#[test]
fn what_must_be_there_already_is_not_made() {
    let text = "[disk.s]\nserial = 's'\npartitions = [\n\
                { name = 'root', type = 'ext4', keep = true, partlabel = 'disk-main-root' },\n\
                { name = 'pool', size = 'rest', type = 'zfs' } ]\n\
                [pool]\nname = 'cache'\npartitions = ['pool']\n[dataset]";
    let layout = layout(text);
    let on = |surface| facts("s", disk("/dev/vda", surface));
    assert!(refused(&layout, &on(Surface::Blank))[0].contains("root must be there already"));
    let other = table("/dev/vda", &[("snowbank-pool", None)]);
    let refused = refused(&layout, &on(other));
    assert!(refused[0].contains("none has the GPT name disk-main-root"), "{refused:?}");
    let there = table("/dev/vda", &[("disk-main-root", Some(signature("ext4", "nixos")))]);
    assert_eq!(kinds(&planned(&layout, &on(there))), ["add-partitions", "make-pool"]);
    let empty = table("/dev/vda", &[("disk-main-root", None)]);
    let refused = super::refused(&layout, &on(empty));
    assert!(refused[0].contains("must have a file system of type ext4 already"), "{refused:?}");
}

#[test]
fn partitions_that_the_kernel_missed_are_announced() {
    let Surface::Gpt(mut table) = table("/dev/vdb", &[("snowbank-cache", None)]) else {
        unreachable!()
    };
    table.partitions[0].visible = false;
    let plan = planned(&dedicated(), &facts("cache", disk("/dev/vdb", Surface::Gpt(table))));
    assert_eq!(kinds(&plan), ["announce", "make-pool", "make-dataset"]);
    assert_eq!(lines(&plan)[2], "wait /dev/disk/by-partuuid/00000001");
}

/// What was there before the table comes to light when a partition is made over it.
#[test]
fn remains_where_a_partition_would_be_are_as_good_as_a_signature() {
    let mut disk = disk("/dev/vdb", Surface::Blank);
    disk.remains.insert(name("cache"), signature("zfs_member", "old"));
    let facts = facts("cache", disk);
    let refused = refused(&dedicated(), &facts);
    assert!(
        refused[0]
            .contains("where the partition cache would be there is a part of the ZFS pool \"old\""),
        "{refused:?}"
    );
    let plan = plan(&dedicated(), &facts, &wiping("cache")).unwrap();
    let lines = lines(&plan);
    let clear = "wipefs --quiet --all /dev/disk/by-partuuid/uuid-cache";
    let clear = lines.iter().position(|line| line == clear).unwrap();
    assert!(lines[clear + 1].contains(" seek=0 "), "{lines:?}");
    assert!(lines[clear + 3].starts_with("zpool create "), "{lines:?}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_then_nothing_is_done() {
    let text = "[disk.a]\nserial = 'a'\n[disk.b]\nserial = 'b'\n[volume.a]\npartition = 'a'\n\
                [volume.b]\npartition = 'b'";
    let mut facts = facts("a", disk("/dev/vdb", Surface::Unknown));
    facts.disks.insert(name("b"), disk("/dev/vdc", Surface::Signed(vec![signature("xfs", "")])));
    assert_eq!(refused(&layout(text), &facts).len(), 2);
}
