mod contents;
mod datasets;
mod disks;
mod pools;

use std::path::Path;

use super::super::facts::{self, Directory, Disk, Member, MemberState, Signature, Surface, Table};
use super::super::layout::{Layout, MIB, Name};
use super::*;

const GIB: u64 = 1024 * MIB;
/// What this machine calls itself.
const HOST: u32 = 0x0102_0304;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn layout(text: &str) -> Layout {
    Layout::parse(text, Path::new("layout.toml")).unwrap()
}

/// A second disk that is the pool, with one dataset that belongs to nobody.
fn dedicated() -> Layout {
    layout(
        "[disk.cache]\ndevice = '/dev/disk/by-id/virtio-d1'\n\
         [pool]\nname = 'cache'\npartitions = ['cache']\n\
         [dataset.a]\nrole = 'cache'\nmountpoint = '/srv/a'",
    )
}

/// One disk with everything.
fn single_disk() -> Layout {
    layout(
        "[disk.system]\nserial = 's'\npartitions = [\n\
         { name = 'esp', size = '512M', type = 'esp' },\n\
         { name = 'root', size = '2G', type = 'ext4' },\n\
         { name = 'pool', size = 'rest', type = 'zfs' } ]\n\
         [pool]\nname = 'cache'\npartitions = ['pool']\n[dataset]",
    )
}

/// A disk for a volume.
fn volume() -> Layout {
    layout(
        "[disk.yocto]\nserial = 'y'\n[volume.yocto]\npartition = 'yocto'\n\
         mountpoint = '/var/cache/yocto'\nowner = 'runner'",
    )
}

fn signature(kind: &str, label: &str) -> Signature {
    let label = Some(label.to_owned()).filter(|label| !label.is_empty());
    Signature { kind: kind.into(), label, uuid: None }
}

fn disk(node: &str, surface: Surface) -> Disk {
    Disk {
        path: format!("/dev/disk/by-id/virtio-{}", &node[5..]),
        node: node.into(),
        size: 10 * GIB,
        read_only: false,
        users: Vec::new(),
        surface,
        marked: false,
        remains: Default::default(),
    }
}

/// A table on `node` of partitions of 1 GiB each: label and content.
fn table(node: &str, partitions: &[(&str, Option<Signature>)]) -> Surface {
    let mut start = MIB;
    let partition = |(number, (label, content)): (u32, &(&str, Option<Signature>))| {
        let size = GIB;
        start += size;
        facts::Partition {
            number,
            node: format!("{node}{number}"),
            start: start - size,
            size,
            uuid: format!("0000000{number}"),
            label: (*label).into(),
            content: content.clone(),
            visible: true,
            users: Vec::new(),
        }
    };
    Surface::Gpt(Table {
        partitions: (1..).zip(partitions).map(partition).collect(),
        disk_has_grown: false,
    })
}

fn member(node: &str, pool: &str, guid: u64, state: MemberState) -> Member {
    let (host_id, host_name) = (HOST, "here".into());
    Member { node: node.into(), pool: pool.into(), guid, state, host_id, host_name }
}

/// What is there: the disk `name`, empty directories, and the user `runner`.
fn facts(name: &str, disk: Disk) -> Facts {
    let mut facts = Facts { host_id: HOST, ..Facts::default() };
    facts.disks.insert(self::name(name), disk);
    for name in ["cache", "esp", "root", "pool", "yocto"] {
        facts.new_uuids.insert(self::name(name), format!("uuid-{name}"));
    }
    facts.directories.insert("/srv/a".into(), Directory::Missing);
    facts.directories.insert("/var/cache/yocto".into(), Directory::Empty);
    facts.owners.insert("runner".into(), (30, 100));
    facts
}

fn planned(layout: &Layout, facts: &Facts) -> Plan {
    plan(layout, facts, &Permission::default()).unwrap_or_else(|refusals| panic!("{refusals:?}"))
}

/// The refusals, each a line.
fn refused(layout: &Layout, facts: &Facts) -> Vec<String> {
    refused_with(layout, facts, &Permission::default())
}

fn refused_with(layout: &Layout, facts: &Facts, permission: &Permission) -> Vec<String> {
    let refusals = plan(layout, facts, permission).expect_err("it must be refused");
    let lines: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:?}");
    lines
}

fn wiping(disk: &str) -> Permission {
    Permission { wipe: [name(disk)].into(), import_foreign: None }
}

/// The kinds of the steps.
fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(|step| step.kind).collect()
}

/// All commands and waits, each a line.
fn lines(plan: &Plan) -> Vec<String> {
    let actions = plan.steps.iter().flat_map(|step| &step.actions);
    let line = |action: &super::super::step::Action| match action {
        super::super::step::Action::Run(command) => command.script(),
        super::super::step::Action::WaitFor(path) => format!("wait {}", path.display()),
    };
    actions.map(line).collect()
}

/// That nothing of the plan can destroy anything that it was not told to.
fn is_harmless(plan: &Plan) {
    for line in lines(plan) {
        let words: Vec<_> = line.split_whitespace().collect();
        let first = words[0];
        assert!(!["wipefs", "blkdiscard", "sgdisk"].contains(&first), "{line}");
        assert!(first != "zpool" || ["create", "import"].contains(&words[1]), "{line}");
        assert!(first != "zpool" || !words.contains(&"-f"), "{line}");
    }
}
