//! The pool.

use super::*;
use crate::zfs::name::PoolName;

fn with_pool(state: MemberState) -> Facts {
    let content = Some(signature("zfs_member", "cache"));
    let mut facts =
        facts("cache", disk("/dev/vdb", table("/dev/vdb", &[("snowbank-cache", content)])));
    facts.members.push(member("/dev/vdb1", "cache", 77, state));
    facts
}

fn imported(devices: &[&str], guid: u64) -> facts::ImportedPool {
    facts::ImportedPool {
        name: PoolName::parse("cache").unwrap(),
        guid,
        devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        datasets: Default::default(),
    }
}

/// Defect 5: a pool that is not imported was taken for none, and a new one made over it.
#[test]
fn a_pool_that_is_there_is_imported_and_not_made() {
    for state in [MemberState::Active, MemberState::Exported] {
        let plan = planned(&dedicated(), &with_pool(state));
        is_harmless(&plan);
        assert_eq!(kinds(&plan), ["import-pool", "make-dataset"]);
        assert_eq!(lines(&plan)[0], "zpool import -N -o cachefile=none 77");
        assert!(plan.steps[1].provisional, "what the pool has is known later");
        // Nor with permission to wipe: it is as the layout says.
        let plan = super::plan(&dedicated(), &with_pool(state), &wiping("cache")).unwrap();
        assert_eq!(kinds(&plan), ["import-pool", "make-dataset"]);
    }
}

/// Defect 7: the same pool, once on the whole disk and once in a partition, was two layouts.
#[test]
fn a_pool_on_the_whole_disk_is_the_same_pool() {
    let content = Some(signature("zfs_member", "cache"));
    let by_zfs = table("/dev/vdb", &[("zfs-baf119317f130a18", content.clone()), ("", None)]);
    let raw = Surface::Signed(content.into_iter().collect());
    for (surface, node) in [(by_zfs, "/dev/vdb1"), (raw, "/dev/vdb")] {
        let mut facts = facts("cache", disk("/dev/vdb", surface));
        facts.members.push(member(node, "cache", 77, MemberState::Exported));
        let plan = planned(&dedicated(), &facts);
        assert_eq!(kinds(&plan), ["import-pool", "make-dataset"]);
        assert!(plan.notes[0].contains(node) && plan.notes[0].contains("used as it is"));
    }
}

/// Defect 6: a pool was taken for the whole, and what was missing in it was never made.
#[test]
fn a_partition_without_its_pool_and_a_pool_without_its_datasets_are_completed() {
    let bare = facts("cache", disk("/dev/vdb", table("/dev/vdb", &[("snowbank-cache", None)])));
    assert_eq!(kinds(&planned(&dedicated(), &bare)), ["make-pool", "make-dataset"]);
    let mut facts = with_pool(MemberState::Active);
    facts.pool = Some(imported(&["/dev/vdb1"], 77));
    let plan = planned(&dedicated(), &facts);
    assert_eq!(kinds(&plan), ["make-dataset"]);
    assert!(!plan.steps[0].provisional);
}

#[test]
fn a_pool_that_never_came_into_being_is_made_again() {
    let plan = planned(&dedicated(), &with_pool(MemberState::NeverMade));
    is_harmless(&plan);
    assert_eq!(kinds(&plan), ["make-pool", "make-dataset"]);
}

#[test]
fn a_destroyed_pool_and_one_without_a_readable_label_are_signatures_like_others() {
    let mut unreadable = with_pool(MemberState::Active);
    unreadable.members.clear();
    for facts in [with_pool(MemberState::Destroyed), unreadable] {
        let refused = refused(&dedicated(), &facts);
        assert!(refused[0].contains("it holds a part of the ZFS pool \"cache\""), "{refused:?}");
        let plan = plan(&dedicated(), &facts, &wiping("cache")).unwrap();
        assert!(lines(&plan)[0].starts_with("wipefs --quiet --all "), "{:?}", lines(&plan));
        assert_eq!(kinds(&plan), ["make-pool", "make-dataset"]);
    }
}

#[test]
fn another_pool_in_our_partition_is_refused() {
    let content = Some(signature("zfs_member", "tank"));
    let mut facts =
        facts("cache", disk("/dev/vdb", table("/dev/vdb", &[("snowbank-cache", content)])));
    facts.members.push(member("/dev/vdb1", "tank", 5, MemberState::Exported));
    let refused = refused(&dedicated(), &facts);
    assert!(refused[0].contains("it holds a part of the ZFS pool \"tank\""), "{refused:?}");
}

#[test]
fn a_pool_of_another_machine_is_taken_over_only_when_told_so() {
    let mut facts = with_pool(MemberState::Active);
    facts.members[0].host_id = 0xdead_beef;
    facts.members[0].host_name = "other".into();
    let refused = refused(&dedicated(), &facts);
    assert!(refused[0].starts_with("pool cache: another machine used it last"), "{refused:?}");
    for part in ["\"other\"", "deadbeef", "01020304", "--import-foreign cache"] {
        assert!(refused[0].contains(part), "no {part} in {refused:?}");
    }
    // Wiping is not taking over.
    assert_eq!(refused_with(&dedicated(), &facts, &wiping("cache")), refused);
    let permission =
        Permission { import_foreign: PoolName::parse("cache").ok(), ..Permission::default() };
    let plan = plan(&dedicated(), &facts, &permission).unwrap();
    assert_eq!(lines(&plan)[0], "zpool import -N -o cachefile=none -f 77");
    let other =
        Permission { import_foreign: PoolName::parse("tank").ok(), ..Permission::default() };
    assert_eq!(refused_with(&dedicated(), &facts, &other), refused);
    // Exported means that anybody may have it; and a machine without a number leaves none.
    facts.members[0].state = MemberState::Exported;
    assert_eq!(lines(&planned(&dedicated(), &facts))[0], "zpool import -N -o cachefile=none 77");
    facts.members[0].state = MemberState::Active;
    facts.members[0].host_id = 0;
    assert_eq!(lines(&planned(&dedicated(), &facts))[0], "zpool import -N -o cachefile=none 77");
}

#[test]
fn a_machine_without_a_host_id_is_told_how_to_get_one() {
    let mut facts = with_pool(MemberState::Active);
    facts.host_id = 0;
    assert!(refused(&dedicated(), &facts)[0].contains("zgenhostid"));
}

#[test]
fn which_pool_is_meant_must_be_clear() {
    let text = "[disk.cache]\nserial = 'c'\n[disk.b]\nserial = 'b'\n\
                [pool]\nname = 'cache'\npartitions = ['cache', 'b']\n[dataset]";
    let content = || Some(signature("zfs_member", "cache"));
    let mut facts =
        facts("cache", disk("/dev/vdb", table("/dev/vdb", &[("snowbank-cache", content())])));
    facts
        .disks
        .insert(name("b"), disk("/dev/vdc", table("/dev/vdc", &[("snowbank-b", content())])));
    facts.members.push(member("/dev/vdb1", "cache", 77, MemberState::Active));
    facts.members.push(member("/dev/vdc1", "cache", 88, MemberState::Active));
    let refused = refused(&layout(text), &facts);
    assert!(refused[0].contains("two pools of this name") && refused[0].contains("pool.guid"));
    let text = text.replace("[dataset]", "guid = '88'\n[dataset]");
    assert_eq!(lines(&planned(&layout(&text), &facts))[0], "zpool import -N -o cachefile=none 88");
    let text = text.replace("'88'", "'99'");
    let refused = super::refused(&layout(&text), &facts);
    assert!(refused[0].contains("there is no pool with the guid 99"), "{refused:?}");
}

#[test]
fn a_pool_of_that_name_on_other_disks_is_neither_used_nor_doubled() {
    let mut facts = facts("cache", disk("/dev/vdb", Surface::Blank));
    facts.members.push(member("/dev/vdz1", "cache", 5, MemberState::Exported));
    let refused = refused(&dedicated(), &facts);
    assert!(refused[0].contains("a pool of this name is on /dev/vdz1"), "{refused:?}");
    facts.pool = Some(imported(&["/dev/vdz1"], 5));
    let refused = super::refused(&dedicated(), &facts);
    assert!(refused[0].contains("imported already, from /dev/vdz1"), "{refused:?}");
}

#[test]
fn an_imported_pool_with_another_guid_is_refused() {
    let text = "[disk.cache]\nserial = 'c'\n[pool]\nname = 'cache'\npartitions = ['cache']\n\
                guid = '5'\n[dataset]";
    let mut facts = with_pool(MemberState::Active);
    facts.pool = Some(imported(&["/dev/vdb1"], 77));
    assert!(refused(&layout(text), &facts)[0].contains("it has the guid 77, not that"));
}

#[test]
fn a_mirror_is_made_of_both_and_one_half_is_not_attached_by_itself() {
    let text = "[disk.a]\nserial = 'a'\n[disk.b]\nserial = 'b'\n[pool]\nname = 'cache'\nmirror = true\n\
                partitions = ['a', 'b']\n[dataset]";
    let layout = layout(text);
    let mut facts = facts("a", disk("/dev/vdb", Surface::Blank));
    facts.new_uuids.insert(name("a"), "uuid-a".into());
    facts.new_uuids.insert(name("b"), "uuid-b".into());
    facts.disks.insert(name("b"), disk("/dev/vdc", Surface::Blank));
    let plan = planned(&layout, &facts);
    assert_eq!(kinds(&plan), ["make-table", "make-table", "make-pool"]);
    assert!(
        lines(&plan)
            .last()
            .unwrap()
            .ends_with(" cache mirror /dev/disk/by-partuuid/uuid-a /dev/disk/by-partuuid/uuid-b")
    );
    let content = Some(signature("zfs_member", "cache"));
    facts.disks.insert(name("a"), disk("/dev/vdb", table("/dev/vdb", &[("snowbank-a", content)])));
    facts.members.push(member("/dev/vdb1", "cache", 77, MemberState::Active));
    let plan = planned(&layout, &facts);
    assert_eq!(kinds(&plan), ["make-table", "import-pool"]);
    assert!(plan.notes[0].contains("partition b") && plan.notes[0].contains("zpool attach"));
}

#[test]
fn no_pool_is_made_while_one_of_its_disks_is_refused() {
    let text = "[disk.a]\nserial = 'a'\n[disk.b]\nserial = 'b'\n[pool]\nname = 'cache'\n\
                partitions = ['a', 'b']\n[dataset]";
    let mut facts = facts("a", disk("/dev/vdb", Surface::Blank));
    facts.new_uuids.insert(name("a"), "uuid-a".into());
    facts.disks.insert(name("b"), disk("/dev/vdc", Surface::Unknown));
    let refused = refused(&layout(text), &facts);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].starts_with("disk b (/dev/vdc)"), "{refused:?}");
}
