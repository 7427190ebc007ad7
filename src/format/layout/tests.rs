use std::path::Path;
use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Layout, String> {
    Layout::parse(text, Path::new("disks.toml")).map_err(|error| error.to_string())
}

const CACHE: &str =
    "[disk.cache]\nserial = 'vol0'\n[pool]\nname = 'cache'\npartitions = ['cache']\n";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn the_examples_are_layouts() {
    let layout = parse(EXAMPLE_DEDICATED).unwrap();
    let disk = &layout.disks[0];
    assert_eq!(disk.found_by, FoundBy::Serial("vol0123456789abcdef0".into()));
    assert_eq!((disk.wait, disk.optional), (Duration::from_secs(300), false));
    assert_eq!(disk.partitions.len(), 1);
    let partition = &disk.partitions[0];
    assert_eq!((partition.label.as_str(), partition.size), ("snowbank-cache", Size::Rest));
    assert_eq!(partition.content, Content::Zfs);
    assert!(layout.disks[1].optional && layout.disks[1].partitions[0].content == Content::Ext4);
    assert_eq!(layout.volumes[0].options, ["noatime", "nodev"]);

    let layout = parse(EXAMPLE_SINGLE_DISK).unwrap();
    let contents: Vec<_> = layout.disks[0].partitions.iter().map(|one| one.content).collect();
    assert_eq!(contents, [Content::Esp, Content::Ext4, Content::Zfs]);
    assert_eq!(layout.disks[0].partitions[1].size, Size::Bytes(50 << 30));
    let quota = &layout.datasets[2].properties;
    assert_eq!(*quota, [("quota".to_owned(), (200_u64 << 30).to_string())]);
}

#[test]
fn a_pool_has_the_usual_datasets_unless_it_is_told_which() {
    let usual = parse(CACHE).unwrap();
    let named: Vec<_> = usual.datasets.iter().map(|one| (one.name.as_str(), one.role)).collect();
    assert_eq!(
        named,
        [
            ("cache/snowbank", Some(Role::Parent)),
            ("cache/snowbank/default", Some(Role::Cache)),
            ("cache/snowbank/state", Some(Role::State)),
        ]
    );
    assert_eq!(
        parse(EXAMPLE_DEDICATED).unwrap().datasets[1..],
        usual.datasets[..][..1]
            .iter()
            .chain(&usual.datasets[1..])
            .cloned()
            .map(|mut one| {
                if one.name.as_str() == "cache/snowbank/default" {
                    one.owner = Owner::parse("root");
                }
                one
            })
            .collect::<Vec<_>>()[..]
    );
    let none = parse(&format!("{CACHE}[dataset]\n")).unwrap();
    assert_eq!(none.datasets, []);
}

#[test]
fn partitions_are_found_by_the_layouts_names_for_them() {
    let layout = parse(EXAMPLE_SINGLE_DISK).unwrap();
    let (disk, partition) = layout.partition(&name("root")).unwrap();
    assert_eq!((disk.name.as_str(), partition.label.as_str()), ("system", "snowbank-root"));
    assert!(layout.partition(&name("system")).is_none());
}

/// Each is one line that names the file, the key, the value and what is allowed.
#[test]
fn each_mistake_is_one_line_that_says_what_is_allowed() {
    let parts = |list: &str| {
        format!(
            "[disk.d]\nserial = 's'\npartitions = [{list}]\n[pool]\nname = 'p'\npartitions = ['pool']"
        )
    };
    let pool = "{ name = 'pool', size = 'rest', type = 'zfs' }";
    let disk = |more: &str| {
        format!("[disk.cache]\n{more}\n[pool]\nname = 'cache'\npartitions = ['cache']")
    };
    let dataset = |more: &str| format!("{CACHE}[dataset.a]\n{more}");
    let volume =
        |more: &str| format!("{CACHE}[disk.v]\nserial = 'v'\n[volume.v]\npartition = 'v'\n{more}");
    let cases: Vec<(String, &str, &str)> = vec![
        ("".into(), "disk = \"\"", "at least one disk"),
        ("disk = 1".into(), "disk = 1", "[disk.<name>]"),
        ("[disc.a]".into(), "disc is not a setting", "did you mean disk?"),
        (
            disk("seriel = 'x'"),
            "disk.cache.seriel is not a setting",
            "did you mean disk.cache.serial?",
        ),
        (disk("colour = 'x'"), "disk.cache.colour", "device, serial, partlabel, wait"),
        (disk(""), "disk = \"cache\"", "exactly one of device"),
        (disk("serial = 's'\ndevice = '/dev/disk/by-id/x'"), "disk = \"cache\"", "exactly one"),
        (disk("device = 'sdb'"), "disk.cache.device = \"sdb\"", "absolute path"),
        (disk("device = '/dev/../x'"), "disk.cache.device", "without . or .."),
        (disk("device = '/srv/disk'"), "disk.cache.device", "a link below /dev"),
        (disk("serial = ''"), "disk.cache.serial", "lsblk"),
        (disk("serial = 1"), "disk.cache.serial = 1", "a text in quotes"),
        (disk("partlabel = 'a$b'"), "disk.cache.partlabel", "1 to 32"),
        (disk("serial = 's'\nwait = 60"), "disk.cache.wait = 60", "\"10s\""),
        (
            disk("serial = 's'\noptional = true"),
            "disk.cache.optional = true",
            "needs all of its disks",
        ),
        ("[disk.a]\nserial = 's'".into(), "disk = \"a\"", "nothing uses this disk"),
        ("[disk.A]\nserial = 's'".into(), "disk = \"A\"", "a name is 1 to 23"),
        (
            format!("{CACHE}[disk.b]\nserial = 'vol0'\n[volume.b]\npartition = 'b'"),
            "disk = \"cache\"",
            "found in the same way",
        ),
        (parts(""), "disk.d.partitions = []", "at least one partition"),
        (parts("1"), "disk.d.partitions[0] = 1", "{ name ="),
        (parts("{ size = '1G' }"), "disk.d.partitions[0]", "its name is missing"),
        (parts("{ name = 'a', size = '1G' }"), "disk.d.partitions[0]", "its type"),
        (parts("{ name = 'a', type = 'ext4' }"), "disk.d.partitions[0]", "its size"),
        (parts("{ name = 'a', type = 'xfs' }"), "disk.d.partitions[0].type = \"xfs\"", "\"ext4\""),
        (parts("{ nam = 'a' }"), "disk.d.partitions[0].nam is not", "did you mean"),
        (
            parts(&format!("{pool}, {{ name = 'a', type = 'ext4', size = '1G' }}")),
            "disk.d.partitions",
            "nothing is left behind",
        ),
        (
            parts(&format!("{{ name = 'a', type = 'ext4', size = '1000000K' }}, {pool}")),
            "disk.d.partitions[0].size",
            "a whole number of MiB",
        ),
        (
            parts(&format!("{{ name = 'a', type = 'esp', size = '1M' }}, {pool}")),
            "disk.d.partitions[0].size = \"1M\"",
            "from 64M",
        ),
        (
            parts(&format!("{{ name = 'pool', type = 'ext4', size = '1G' }}, {pool}")),
            "disk.d.partitions = \"pool\"",
            "two partitions have this name",
        ),
        (
            parts(&format!(
                "{{ name = 'a', type = 'ext4', size = '1G', partlabel = 'snowbank-pool' }}, {pool}"
            )),
            "disk.d.partitions = \"snowbank-pool\"",
            "two partitions have this GPT name",
        ),
        (
            parts(&format!(
                "{{ name = 'a', type = 'ext4', size = '1G', partlabel = 'a.new' }}, {pool}"
            )),
            "disk.d.partitions[0].partlabel",
            "does not end with .new",
        ),
        (
            parts(&format!(
                "{{ name = 'a', type = 'esp', size = '1G', label = 'much-too-long' }}, {pool}"
            )),
            "disk.d.partitions[0].label",
            "1 to 11",
        ),
        (
            parts("{ name = 'pool', type = 'zfs', keep = true }"),
            "disk.d.partitions[0]",
            "keep is for",
        ),
        (
            parts(&format!("{{ name = 'b', type = 'zfs', size = '1G' }}, {pool}")),
            "disk.d.partitions = \"b\"",
            "name it in pool.partitions",
        ),
        (CACHE.replace("name = 'cache'\n", ""), "pool = {}", "its name is missing"),
        (
            CACHE.replace("'cache'\np", "'mirror'\np"),
            "pool.name = \"mirror\"",
            "does not begin with mirror",
        ),
        (CACHE.replace("['cache']", "[]"), "disk = \"cache\"", "nothing uses this disk"),
        (format!("{CACHE}partitons = 1"), "pool.partitons", "did you mean pool.partitions?"),
        (
            CACHE.replace("['cache']", "['cache', 'other']"),
            "pool.partitions = \"other\"",
            "no partition of this name",
        ),
        (CACHE.replace("['cache']", "['cache', 'cache']"), "pool.partitions", "stands here twice"),
        (format!("{CACHE}guid = 5"), "pool.guid = 5", "in quotes"),
        (format!("{CACHE}ashift = 8"), "pool.ashift = 8", "from 9 to 16"),
        (format!("{CACHE}mirror = true"), "pool.mirror = true", "each on its own disk"),
        (
            "[disk.v]\nserial = 'v'\n[volume.v]\npartition = 'v'\n[dataset.a]\nrole = 'plain'"
                .into(),
            "dataset",
            "need a pool",
        ),
        (dataset(""), "dataset = \"a\"", "its role is missing"),
        (dataset("role = 'nix'"), "dataset.a.role = \"nix\"", "\"parent\", \"cache\""),
        (dataset("role = 'cache'\nquota = 'x'"), "dataset.a.quota", "a size in bytes"),
        (dataset("role = 'cache'\nowner = 'a b'"), "dataset.a.owner", "user:group"),
        (dataset("role = 'cache'\nmountpoint = '/nix'"), "dataset.a.mountpoint", "move-nix"),
        (dataset("role = 'cache'\nmountpoint = '/nix/store'"), "dataset.a.mountpoint", "move-nix"),
        (
            dataset("role = 'cache'\nmountpoint = '/'"),
            "dataset.a.mountpoint = \"/\"",
            "system's own",
        ),
        (dataset("role = 'cache'\nmountpoint = '/run/x'"), "dataset.a.mountpoint", "system's own"),
        (
            dataset("role = 'cache'\nmountpoint = '/a/'"),
            "dataset.a.mountpoint = \"/a/\"",
            "absolute",
        ),
        (
            dataset("role = 'plain'\nproperties = { canmount = 'on' }"),
            "dataset.a.properties.canmount",
            "cannot be set here",
        ),
        (
            dataset("role = 'plain'\nproperties = { 'a b' = 'on' }"),
            "dataset.a.properties.a b",
            "a-z 0-9",
        ),
        (
            dataset("role = 'plain'\nproperties = { recordsize = [] }"),
            "dataset.a.properties.recordsize",
            "as after `zfs set`",
        ),
        (
            format!("{CACHE}[dataset.'a/b']\nrole = 'plain'"),
            "dataset = \"a/b\"",
            "its parent cache/a is missing",
        ),
        (format!("{CACHE}[dataset.'a b']\nrole = 'plain'"), "dataset = \"a b\"", "letters, digits"),
        (
            format!("{CACHE}[volume.v]\nmountpoint = '/v'"),
            "volume = \"v\"",
            "partition = \"…\" is missing",
        ),
        (
            format!("{CACHE}[volume.v]\npartition = 'cache'"),
            "volume.v.partition = \"cache\"",
            "type = \"ext4\"",
        ),
        (volume("options = ['a,b']"), "volume.v.options = \"a,b\"", "noatime"),
        (
            volume("mountpoint = '/var/lib/snowbank'"),
            "volume.v.mountpoint",
            "something else of this layout",
        ),
        (
            volume("[volume.w]\npartition = 'v'"),
            "volume.w.partition = \"v\"",
            "another volume is on this partition",
        ),
    ];
    for (text, place, allowed) in cases {
        let error = parse(&text).expect_err(&text);
        assert!(error.starts_with("disks.toml: ") && !error.contains('\n'), "{error}");
        assert!(error.contains(place), "{text}\n{error}\nwithout {place}");
        assert!(error.contains(allowed), "{text}\n{error}\nwithout {allowed}");
    }
}

#[test]
fn what_is_not_toml_and_a_file_that_is_not_there_are_named() {
    assert!(parse("disk = ").unwrap_err().starts_with("disks.toml:1: not valid TOML: "));
    let error = Layout::load(Path::new("/nonexistent/l.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/l.toml: cannot read"), "{error}");
}

#[test]
fn a_label_leaves_room_for_saying_that_it_is_unfinished() {
    let longest = Name::parse(&"x".repeat(23)).unwrap();
    assert_eq!(PartLabel::of(&longest).begun().len(), 36);
    assert!(Name::parse(&"x".repeat(24)).is_none());
    assert!(PartLabel::parse(&"x".repeat(33)).is_none());
    assert_eq!(PartLabel::parse("EFI system").unwrap().as_link(), "EFI\\x20system");
}
