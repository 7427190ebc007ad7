//! The datasets.

use super::*;
use crate::zfs::name::{DatasetName, PoolName};

fn dataset(mountpoint: &str) -> facts::Dataset {
    let mountpoint = mountpoint.into();
    facts::Dataset { mountpoint, can_mount: true, mounted: true, is_new: false }
}

/// The pool is imported and has these datasets.
fn with(datasets: &[(&str, facts::Dataset)]) -> Facts {
    let content = Some(signature("zfs_member", "cache"));
    let mut facts =
        facts("cache", disk("/dev/vdb", table("/dev/vdb", &[("snowbank-cache", content)])));
    facts.members.push(member("/dev/vdb1", "cache", 77, MemberState::Active));
    let datasets =
        datasets.iter().map(|(name, dataset)| (DatasetName::parse(name).unwrap(), dataset.clone()));
    facts.pool = Some(facts::ImportedPool {
        name: PoolName::parse("cache").unwrap(),
        guid: 77,
        devices: vec!["/dev/vdb1".into()],
        datasets: datasets.collect(),
    });
    for path in ["/srv/x", "/var/lib/snowbank/default", "/var/lib/snowbank/state"] {
        facts.directories.insert(path.into(), Directory::Missing);
    }
    facts
}

const OWNED: &str = "[disk.cache]\nserial = 'c'\n[pool]\nname = 'cache'\npartitions = ['cache']\n\
                     [dataset.x]\nrole = 'cache'\nmountpoint = '/srv/x'\nowner = 'runner'\n\
                     quota = '1G'\nproperties = { recordsize = '512K' }";

#[test]
fn a_dataset_is_given_to_its_owner_and_says_until_then_that_it_is_new() {
    let plan = planned(&layout(OWNED), &with(&[]));
    assert_eq!(
        lines(&plan),
        [
            "zfs create -u -o recordsize=512K -o quota=1073741824 -o mountpoint=/srv/x \
             -o snowbank:new=yes cache/x",
            "zfs mount cache/x",
            "chown 30:100 -- /srv/x",
            "zfs inherit snowbank:new cache/x",
        ]
    );
}

#[test]
fn a_dataset_that_was_begun_is_completed_from_where_it_is() {
    let begun = |mounted| facts::Dataset { is_new: true, mounted, ..dataset("/srv/x") };
    let plan = planned(&layout(OWNED), &with(&[("cache/x", begun(false))]));
    assert_eq!(kinds(&plan), ["mount-dataset", "give-dataset"]);
    let plan = planned(&layout(OWNED), &with(&[("cache/x", begun(true))]));
    assert_eq!(lines(&plan), ["chown 30:100 -- /srv/x", "zfs inherit snowbank:new cache/x"]);
}

#[test]
fn a_dataset_that_is_there_is_neither_changed_nor_given_away() {
    let plan = planned(&layout(OWNED), &with(&[("cache/x", dataset("/srv/x"))]));
    assert_eq!(plan, Plan::default());
    let unmounted = facts::Dataset { mounted: false, ..dataset("/srv/x") };
    let plan = planned(&layout(OWNED), &with(&[("cache/x", unmounted)]));
    assert_eq!(lines(&plan), ["zfs mount cache/x"]);
}

#[test]
fn a_dataset_that_is_mounted_elsewhere_is_refused_and_stays_there() {
    for point in ["/", "/srv/y", "legacy", "none"] {
        let unmounted = facts::Dataset { mounted: false, ..dataset(point) };
        let refused = refused(&layout(OWNED), &with(&[("cache/x", unmounted)]));
        assert!(refused[0].contains(&format!("its mountpoint is {point}, the layout says /srv/x")));
    }
}

/// Defect 1: an empty dataset was mounted over the running `/nix/store`.
#[test]
fn nothing_is_mounted_over_files() {
    for is_there in [true, false] {
        let unmounted = facts::Dataset { mounted: false, ..dataset("/srv/x") };
        let there = [("cache/x", unmounted)];
        let mut facts = with(if is_there { &there } else { &[] });
        for directory in [Directory::Occupied, Directory::Mounted("tmpfs".into())] {
            facts.directories.insert("/srv/x".into(), directory);
            assert_eq!(refused(&layout(OWNED), &facts).len(), 1);
        }
    }
}

/// Defect 2: `/nix` was on a pool that the system needed before it could be made.
#[test]
fn no_layout_puts_the_booted_store_onto_the_pool() {
    for path in ["/nix", "/nix/store", "/nix/var/nix/db"] {
        let text = OWNED.replace("/srv/x", path);
        let error = Layout::parse(&text, Path::new("l")).unwrap_err().to_string();
        assert!(error.contains("move-nix"), "{error}");
    }
    let usual = "[disk.cache]\nserial = 'c'\n[pool]\nname = 'cache'\npartitions = ['cache']";
    assert!(layout(usual).datasets.iter().all(|one| !one.name.as_str().contains("nix")));
}

#[test]
fn the_usual_datasets_lie_below_their_parent() {
    let usual = "[disk.cache]\nserial = 'c'\n[pool]\nname = 'cache'\npartitions = ['cache']";
    let plan = planned(&layout(usual), &with(&[]));
    assert_eq!(
        lines(&plan),
        [
            "zfs create -u -o atime=off -o xattr=sa -o acltype=posixacl -o dnodesize=auto \
             -o compression=zstd -o canmount=off -o mountpoint=/var/lib/snowbank cache/snowbank",
            "zfs create -u -o recordsize=1M cache/snowbank/default",
            "zfs mount cache/snowbank/default",
            "zfs create -u -o recordsize=16K -o logbias=latency cache/snowbank/state",
            "zfs mount cache/snowbank/state",
        ]
    );
    let parent = facts::Dataset { can_mount: false, mounted: false, ..dataset("/elsewhere") };
    let all = [
        ("cache/snowbank", parent),
        ("cache/snowbank/default", dataset("/var/lib/snowbank/default")),
        ("cache/snowbank/state", dataset("/var/lib/snowbank/state")),
    ];
    assert_eq!(planned(&layout(usual), &with(&all)), Plan::default());
}

#[test]
fn a_plain_dataset_without_a_mountpoint_is_only_made() {
    let text = "[disk.cache]\nserial = 'c'\n[pool]\nname = 'cache'\npartitions = ['cache']\n\
                [dataset.reserved]\nrole = 'plain'\nproperties = { refreservation = '1G' }";
    let plan = planned(&layout(text), &with(&[]));
    assert_eq!(lines(&plan), ["zfs create -u -o refreservation=1G cache/reserved"]);
    let none = facts::Dataset { mounted: false, ..dataset("none") };
    assert_eq!(planned(&layout(text), &with(&[("cache/reserved", none)])), Plan::default());
}

#[test]
fn what_else_is_in_the_pool_is_left_alone() {
    let other = facts::Dataset { mounted: false, ..dataset("/precious") };
    let plan = planned(
        &layout(OWNED),
        &with(&[("cache/precious", other), ("cache/x", dataset("/srv/x"))]),
    );
    assert_eq!(plan, Plan::default());
}
