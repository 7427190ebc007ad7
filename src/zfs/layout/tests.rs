//! Plans, made of what is wanted and what there is.

use super::*;
use crate::zfs::Ratio;
use crate::zfs::dataset::{Kind, Mountpoint};
use crate::zfs::name::UserName;
use crate::zfs::property::Source;

const SERVICE: (u32, u32) = (990, 985);
const CACHE: &str = "/data/default";

fn name(text: &str) -> DatasetName {
    DatasetName::parse(text).unwrap()
}

fn account() -> Account {
    Account { name: UserName::parse("snowbank").unwrap(), uid: SERVICE.0, gid: SERVICE.1 }
}

fn layout() -> Layout {
    let member = |dataset: &str, role, directory: &str, quota| Member {
        dataset: name(dataset),
        role,
        mountpoint: directory.into(),
        quota,
    };
    Layout {
        parent: name("tank/snowbank"),
        members: vec![
            member("tank/snowbank/state", Role::State, "/data/state", None),
            member("tank/snowbank/default", Role::Cache, CACHE, Some(1 << 30)),
        ],
        directory: "/data".into(),
        account: Some(account()),
    }
}

/// Nothing but a pool.
fn bare() -> Found {
    Found { above: true, ..Found::default() }
}

fn plain(empty: bool) -> Place {
    Place::Directory { empty, owner: (0, 0), mounted: None }
}

fn mounted(dataset: &str) -> Place {
    let mounted = Some(Mounted::Dataset(name(dataset)));
    Place::Directory { empty: true, owner: SERVICE, mounted }
}

fn found_dataset(dataset: &str, role: Role, mountpoint: Option<&str>) -> FoundDataset {
    let property = |name: &str, value: &str| Property {
        of: dataset.into(),
        name: name.into(),
        value: value.into(),
        source: Source::Local,
    };
    let mut properties: Vec<_> =
        role.wanted().iter().map(|wanted| property(wanted.name, wanted.value)).collect();
    if role != Role::Parent {
        properties.push(property("canmount", "on"));
    }
    properties.push(property(ADOPTING, "-"));
    let dataset = Dataset {
        name: name(dataset),
        kind: Kind::Filesystem,
        guid: 1,
        used: 0,
        available: 0,
        referenced: 0,
        logical_used: 0,
        quota: Some(1 << 30),
        refquota: None,
        compress_ratio: Ratio::parse("1.00").unwrap(),
        used_by_snapshots: 0,
        mounted: mountpoint.is_some(),
        readonly: false,
        origin: None,
        mountpoint: mountpoint.map_or(Mountpoint::None, |path| Mountpoint::Path(path.into())),
        receive_resume_token: None,
    };
    FoundDataset { dataset, properties }
}

/// Everything as it is to be.
fn all() -> Found {
    let mut found = bare();
    let datasets = [
        found_dataset("tank/snowbank", Role::Parent, None),
        found_dataset("tank/snowbank/state", Role::State, Some("/data/state")),
        found_dataset("tank/snowbank/default", Role::Cache, Some(CACHE)),
    ];
    for dataset in datasets {
        found.datasets.insert(dataset.dataset.name.clone(), dataset);
    }
    found.places.insert("/data".into(), plain(false));
    found.places.insert("/data/state".into(), mounted("tank/snowbank/state"));
    found.places.insert(CACHE.into(), mounted("tank/snowbank/default"));
    found.rights = rights::names().into();
    found
}

fn cache(found: &mut Found) -> &mut FoundDataset {
    found.datasets.get_mut(&name("tank/snowbank/default")).unwrap()
}

fn set(dataset: &mut FoundDataset, property: &str, value: &str) {
    let found = dataset.properties.iter_mut().find(|found| found.name == property).unwrap();
    found.value = value.into();
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

fn planned(found: &Found, files: Files) -> Vec<String> {
    shown(&layout().plan(found, files).unwrap())
}

fn refused(found: &Found, files: Files) -> LayoutError {
    layout().plan(found, files).unwrap_err()
}

#[test]
fn on_a_bare_pool_everything_is_made_from_above_to_below() {
    let common =
        "-o atime=off -o xattr=sa -o acltype=posixacl -o dnodesize=auto -o compression=zstd";
    let rights = rights::names();
    assert_eq!(
        planned(&bare(), Files::Refuse),
        [
            &format!("zfs create -u {common} -o canmount=off tank/snowbank"),
            &format!("zfs allow -u snowbank {} tank/snowbank", rights.join(",")),
            "mkdir -p /data",
            "chown 990:985 /data",
            "zfs create -u -o recordsize=16K -o logbias=latency -o mountpoint=/data/state \
             tank/snowbank/state",
            "zfs mount tank/snowbank/state",
            "chown 990:985 /data/state",
            "zfs create -u -o recordsize=1M -o mountpoint=/data/default -o quota=1073741824 \
             tank/snowbank/default",
            "zfs mount tank/snowbank/default",
            "chown 990:985 /data/default",
        ]
    );
}

#[test]
fn where_all_is_as_wanted_nothing_is_planned() {
    let plan = layout().plan(&all(), Files::Refuse).unwrap();
    assert!(plan.is_empty() && plan.remarks.is_empty(), "{plan:?}");
    assert!(layout().plan(&all(), Files::Adopt).unwrap().is_empty());
}

#[test]
fn root_is_given_nothing_and_delegated_nothing() {
    for root in [None, Some(Account { uid: 0, gid: 0, ..account() })] {
        let layout = Layout { account: root, ..layout() };
        let steps = shown(&layout.plan(&bare(), Files::Refuse).unwrap());
        assert!(!steps.iter().any(|step| step.contains("allow")), "{steps:?}");
    }
    let layout = Layout { account: None, ..layout() };
    let steps = shown(&layout.plan(&bare(), Files::Refuse).unwrap());
    assert!(!steps.iter().any(|step| step.contains("chown")), "{steps:?}");
}

#[test]
fn what_drifted_is_set_in_one_command_and_what_cannot_be_is_remarked() {
    let mut found = all();
    set(cache(&mut found), "recordsize", "131072");
    set(cache(&mut found), "compression", "off");
    set(cache(&mut found), "canmount", "noauto");
    cache(&mut found).dataset.quota = Some(5);
    let index =
        cache(&mut found).properties.iter().position(|found| found.name == "atime").unwrap();
    cache(&mut found).properties[index].value = "on".into();
    cache(&mut found).properties[index].source = Source::Temporary;
    let plan = layout().plan(&found, Files::Refuse).unwrap();
    assert_eq!(
        shown(&plan),
        [
            "zfs set compression=zstd recordsize=1M canmount=on quota=1073741824 tank/snowbank/default"
        ]
    );
    assert_eq!(plan.remarks.len(), 1);
    assert_eq!(plan.remarks[0].drift.wanted.name, "atime");
}

#[test]
fn a_quota_that_nobody_configured_stays() {
    let mut wanted = layout();
    wanted.members[1].quota = None;
    let mut found = all();
    cache(&mut found).dataset.quota = Some(12345);
    assert!(wanted.plan(&found, Files::Refuse).unwrap().is_empty());
}

#[test]
fn only_the_rights_that_are_missing_are_given() {
    let mut found = all();
    found.rights.remove("hold");
    found.rights.remove("send");
    assert_eq!(planned(&found, Files::Refuse), ["zfs allow -u snowbank hold,send tank/snowbank"]);
}

#[test]
fn a_dataset_that_is_not_mounted_is_mounted_and_given_to_the_service() {
    for place in [Place::Missing, plain(true)] {
        let mut found = all();
        cache(&mut found).dataset.mounted = false;
        found.places.insert(CACHE.into(), place);
        assert_eq!(
            planned(&found, Files::Refuse),
            ["zfs mount tank/snowbank/default", "chown 990:985 /data/default"]
        );
    }
}

#[test]
fn one_of_another_owner_is_given_to_the_service() {
    let mut found = all();
    let mounted = Some(Mounted::Dataset(name("tank/snowbank/default")));
    found.places.insert(CACHE.into(), Place::Directory { empty: true, owner: (0, 0), mounted });
    assert_eq!(planned(&found, Files::Refuse), ["chown 990:985 /data/default"]);
}

#[test]
fn a_mount_point_is_set_while_nothing_uses_it_and_never_under_somebody() {
    let mut found = all();
    cache(&mut found).dataset.mounted = false;
    cache(&mut found).dataset.mountpoint = Mountpoint::Path("/elsewhere".into());
    found.places.remove(Path::new(CACHE));
    assert_eq!(
        planned(&found, Files::Refuse)[..2],
        [
            "zfs set mountpoint=/data/default tank/snowbank/default",
            "zfs mount tank/snowbank/default"
        ]
    );
    cache(&mut found).dataset.mounted = true;
    let error = refused(&found, Files::Refuse);
    assert!(matches!(error, LayoutError::Elsewhere { .. }), "{error}");
    assert!(error.to_string().contains("zfs set mountpoint=/data/default"), "{error}");
}

#[test]
fn files_are_never_hidden_by_a_mount() {
    // A bank that was there before its dataset.
    let mut found = bare();
    found.places.insert("/data".into(), plain(false));
    found.places.insert(CACHE.into(), plain(false));
    let error = refused(&found, Files::Refuse);
    assert!(matches!(error, LayoutError::HasFiles { .. }), "{error}");
    assert!(error.to_string().contains("--adopt"), "{error}");
    // Files that were written while the dataset was not mounted.
    let mut found = all();
    cache(&mut found).dataset.mounted = false;
    found.places.insert(CACHE.into(), plain(false));
    for files in [Files::Refuse, Files::Adopt] {
        let error = refused(&found, files);
        assert!(matches!(error, LayoutError::BothHaveFiles { .. }), "{error}");
    }
}

#[test]
fn what_somebody_else_mounted_is_left_alone() {
    let other = Mounted::Other("/dev/sdb1".into());
    let other = Place::Directory { empty: false, owner: (0, 0), mounted: Some(other) };
    for place in [mounted("tank/other"), other] {
        for mut found in [bare(), all()] {
            if let Some(there) = found.datasets.get_mut(&name("tank/snowbank/default")) {
                there.dataset.mounted = false;
            }
            found.places.insert(CACHE.into(), place.clone());
            for files in [Files::Refuse, Files::Adopt] {
                let error = refused(&found, files);
                assert!(matches!(error, LayoutError::Taken { .. }), "{error}");
            }
        }
    }
    let mut found = bare();
    found.places.insert(CACHE.into(), Place::NoDirectory);
    assert!(matches!(refused(&found, Files::Adopt), LayoutError::NoDirectory(_)));
}

#[test]
fn a_parent_that_holds_files_is_refused_and_an_empty_one_is_taken() {
    let mut found = all();
    let mut parent = found_dataset("tank/snowbank", Role::Parent, Some("/tank/snowbank"));
    set(&mut parent, "canmount", "on");
    found.datasets.insert(name("tank/snowbank"), parent);
    found.places.insert("/tank/snowbank".into(), mounted("tank/snowbank"));
    assert_eq!(planned(&found, Files::Refuse), ["zfs set canmount=off tank/snowbank"]);
    let place = Place::Directory { empty: false, owner: (0, 0), mounted: None };
    found.places.insert("/tank/snowbank".into(), place);
    assert!(matches!(refused(&found, Files::Adopt), LayoutError::ParentInUse { .. }));
}

#[test]
fn volumes_and_missing_pools_are_told() {
    let found = Found { above: false, ..bare() };
    let error = refused(&found, Files::Refuse);
    assert!(matches!(error, LayoutError::NoPool { .. }), "{error}");
    for volume in ["tank/snowbank", "tank/snowbank/default"] {
        let mut found = all();
        found.datasets.get_mut(&name(volume)).unwrap().dataset.kind = Kind::Volume;
        assert!(matches!(refused(&found, Files::Refuse), LayoutError::Volume(_)));
    }
}

#[test]
fn a_mount_point_is_absolute_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = std::ffi::OsString::from_vec(b"/data/\xff".to_vec());
    for directory in ["data".into(), PathBuf::from(bytes)] {
        let mut layout = layout();
        layout.members[1].mountpoint = directory;
        let error = layout.plan(&bare(), Files::Refuse).unwrap_err();
        assert!(matches!(error, LayoutError::NoMountpoint(_)), "{error}");
    }
}

mod adopting {
    use super::*;

    const BESIDE: &str = "/data/default.adopting";
    const ASIDE: &str = "/data/default.before-zfs";
    const COPY: &str = "cp -a /data/default/. /data/default.adopting \
                        && chown -R 990:985 /data/default.adopting";
    const RENAME: &str = "mv -T /data/default /data/default.before-zfs";
    const COPY_AGAIN: &str = "cp -a /data/default.before-zfs/. /data/default.adopting \
                              && chown -R 990:985 /data/default.adopting";
    const MOUNT: &str = "zfs mount tank/snowbank/default";
    const END: [&str; 4] = [
        "zfs set mountpoint=/data/default canmount=on tank/snowbank/default",
        "chown 990:985 /data/default",
        "rmdir /data/default.adopting",
        "zfs inherit snowbank:adopting tank/snowbank/default",
    ];

    fn steps<'a>(first: &[&'a str]) -> Vec<&'a str> {
        [first, &END].concat()
    }

    /// A bank in a directory, all else as it is to be.
    fn a_bank() -> Found {
        let mut found = all();
        found.datasets.remove(&name("tank/snowbank/default"));
        found.places.insert(CACHE.into(), plain(false));
        found
    }

    /// The same in the midst of an adoption, mounted beside the bank.
    fn interrupted() -> Found {
        let mut found = a_bank();
        let mut there = found_dataset("tank/snowbank/default", Role::Cache, Some(BESIDE));
        set(&mut there, ADOPTING, CACHE);
        set(&mut there, "canmount", "noauto");
        found.datasets.insert(name("tank/snowbank/default"), there);
        found.places.insert(BESIDE.into(), mounted("tank/snowbank/default"));
        found
    }

    #[test]
    fn files_are_copied_beside_and_the_mount_takes_their_place() {
        let create = "zfs create -u -o recordsize=1M -o mountpoint=/data/default.adopting \
                      -o quota=1073741824 -o canmount=noauto -o snowbank:adopting=/data/default \
                      tank/snowbank/default";
        assert_eq!(
            planned(&a_bank(), Files::Adopt),
            steps(&[create, MOUNT, COPY, RENAME, COPY_AGAIN])
        );
    }

    #[test]
    fn it_goes_on_from_wherever_it_was_interrupted() {
        // While it copied.
        let found = interrupted();
        assert_eq!(planned(&found, Files::Adopt), steps(&[COPY, RENAME, COPY_AGAIN]));
        // The same, and the machine was started again.
        let mut found = interrupted();
        cache(&mut found).dataset.mounted = false;
        found.places.insert(BESIDE.into(), plain(true));
        assert_eq!(planned(&found, Files::Adopt), steps(&[MOUNT, COPY, RENAME, COPY_AGAIN]));
        // After the directory was renamed, whether or not somebody made an empty one anew.
        for place in [Place::Missing, plain(true)] {
            let mut found = interrupted();
            found.places.insert(CACHE.into(), place);
            found.places.insert(ASIDE.into(), plain(false));
            assert_eq!(planned(&found, Files::Adopt), steps(&[COPY_AGAIN]));
        }
    }

    #[test]
    fn it_ends_when_the_mount_point_is_set_wherever_the_mount_is() {
        let mut found = interrupted();
        cache(&mut found).dataset.mountpoint = Mountpoint::Path(CACHE.into());
        found.places.insert(ASIDE.into(), plain(false));
        // Set, and not moved yet.
        found.places.insert(CACHE.into(), Place::Missing);
        let unmount = "zfs unmount tank/snowbank/default";
        assert_eq!(planned(&found, Files::Adopt), [&[unmount, MOUNT], &END[1..]].concat());
        // Moved.
        found.places.insert(CACHE.into(), mounted("tank/snowbank/default"));
        found.places.insert(BESIDE.into(), plain(true));
        assert_eq!(planned(&found, Files::Adopt), END[1..]);
        // All but the mark.
        found.places.insert(BESIDE.into(), Place::Missing);
        assert_eq!(planned(&found, Files::Adopt), [END[1], END[3]]);
        // Mounted nowhere, after a new start.
        found.places.insert(CACHE.into(), plain(true));
        assert_eq!(planned(&found, Files::Adopt), [MOUNT, END[1], END[3]]);
    }

    #[test]
    fn without_being_asked_it_does_not_go_on() {
        let error = refused(&interrupted(), Files::Refuse);
        assert!(matches!(error, LayoutError::Interrupted { .. }), "{error}");
        // Nor for another directory than it began with.
        let mut found = interrupted();
        set(cache(&mut found), ADOPTING, "/elsewhere");
        let error = refused(&found, Files::Adopt);
        assert!(error.to_string().contains("/elsewhere"), "{error}");
    }

    #[test]
    fn what_was_written_after_the_rename_is_nobodys_to_merge() {
        let mut found = interrupted();
        found.places.insert(ASIDE.into(), plain(false));
        let error = refused(&found, Files::Adopt);
        assert!(matches!(error, LayoutError::WrittenMeanwhile { .. }), "{error}");
    }
}
