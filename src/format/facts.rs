//! What is there: the answers of the system, as far as a layout needs them. No decisions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::layout::Name;
use crate::zfs::name::{DatasetName, PoolName};

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The disks of the layout that were found in time.
    pub disks: BTreeMap<Name, Disk>,
    /// Every device of the machine, of the layout or not, that says it is part of a pool.
    pub members: Vec<Member>,
    /// The pool of the layout, if it is imported.
    pub pool: Option<ImportedPool>,
    /// What this machine writes into the pools that it uses; 0 where it has no number.
    pub host_id: u32,
    /// What is to be mounted on, by path.
    pub directories: BTreeMap<PathBuf, Directory>,
    /// User and group numbers, by how the layout writes the owner. Missing: there is no such user.
    pub owners: BTreeMap<String, (u32, u32)>,
    /// A number that no partition has yet, for each partition that may be made.
    pub new_uuids: BTreeMap<Name, String>,
}

/// A disk of the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What the commands call it: the link of the layout, or the kernel's name.
    pub path: String,
    /// The kernel's name, such as `/dev/vdb`.
    pub node: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Who uses it or a part of it, in words; empty if nobody does.
    pub users: Vec<String>,
    /// What is on it.
    pub surface: Surface,
    /// Whether our [mark](super::mark) is on it: we began to partition it and did not finish.
    pub marked: bool,
    /// What is found where a partition would be made, by its name: remains of what was there before
    /// the table that is there now.
    pub remains: BTreeMap<Name, Signature>,
}

/// What is on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Nothing: no signature that `blkid` or `wipefs` know, and the first and the last MiB are zero.
    Blank,
    /// A GPT.
    Gpt(Table),
    /// Signatures: a file system, another kind of partition table, a part of something.
    Signed(Vec<Signature>),
    /// No signature, and yet not zero.
    Unknown,
}

/// A partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The partitions by number.
    pub partitions: Vec<Partition>,
    /// Whether there is room behind the table's end: the disk has become larger since.
    pub disk_has_grown: bool,
}

/// A partition that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// The kernel's name, such as `/dev/vdb1`.
    pub node: String,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its own number, in lower case, as in `/dev/disk/by-partuuid`.
    pub uuid: String,
    /// Its name in the table.
    pub label: String,
    /// What is in it; `None` is nothing.
    pub content: Option<Signature>,
    /// Whether the kernel knows of it.
    pub visible: bool,
    /// Who uses it, in words; empty if nobody does.
    pub users: Vec<String>,
}

/// What `blkid` recognises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// `ext4`, `vfat`, `zfs_member`, `LVM2_member`, `dos`, …
    pub kind: String,
    /// The label of the file system, or the name of the pool.
    pub label: Option<String>,
    /// The UUID of the file system, or the guid of the pool.
    pub uuid: Option<String>,
}

/// A device that says it is part of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The kernel's name, such as `/dev/vdb1`.
    pub node: String,
    /// The pool's name.
    pub pool: String,
    /// The pool's guid.
    pub guid: u64,
    /// Whether the pool was last exported, destroyed, or neither.
    pub state: MemberState,
    /// The number of the machine that used the pool last; 0 if it had none.
    pub host_id: u32,
    /// The name of that machine.
    pub host_name: String,
}

/// How a pool was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// In use, or its machine went away without a word.
    Active,
    /// Exported: any machine may have it.
    Exported,
    /// Destroyed. Its data may still be there, and `zpool import -D` may still find them.
    Destroyed,
    /// Begun, and never whole: there is nothing in it, and `zpool create` takes no notice of it.
    NeverMade,
}

/// The pool of the layout, imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedPool {
    /// Its name.
    pub name: PoolName,
    /// Its guid.
    pub guid: u64,
    /// The kernel's names of its devices.
    pub devices: Vec<String>,
    /// Its datasets.
    pub datasets: BTreeMap<DatasetName, Dataset>,
}

/// A dataset that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its property `mountpoint`: a path, `none`, `legacy`, or `-` for a volume.
    pub mountpoint: String,
    /// Whether `zfs mount` would mount it: its property `canmount` is `on` or `noauto`.
    pub can_mount: bool,
    /// Whether it is mounted.
    pub mounted: bool,
    /// Whether we made it and have not given it to its owner yet.
    pub is_new: bool,
}

/// A directory to mount on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// It is not there.
    Missing,
    /// It is there and empty.
    Empty,
    /// There is something in it, which a mount would hide; or it is no directory.
    Occupied,
    /// Something is mounted there: a device as the kernel names it, or a dataset.
    Mounted(String),
}

impl Signature {
    /// For a message: `an ext4 file system labelled "precious"`.
    pub fn in_words(&self) -> String {
        let label = self.label.as_deref().filter(|label| !label.is_empty());
        let quoted = |text: &str| format!("{text:?}");
        match self.kind.as_str() {
            "zfs_member" => match label {
                Some(pool) => format!("a part of the ZFS pool {}", quoted(pool)),
                None => "a part of a ZFS pool".into(),
            },
            "gpt" | "dos" | "PMBR" => format!("a partition table ({})", self.kind),
            kind => {
                let labelled =
                    label.map(|label| format!(" labelled {}", quoted(label))).unwrap_or_default();
                format!("{kind}{labelled}")
            }
        }
    }
}

impl Disk {
    /// Its table, if it has one.
    pub const fn table(&self) -> Option<&Table> {
        match &self.surface {
            Surface::Gpt(table) => Some(table),
            _ => None,
        }
    }
}

impl Table {
    /// The partition of that name.
    pub fn labelled(&self, label: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.label == label)
    }
}

impl Partition {
    /// Its name that stays the same from boot to boot.
    pub fn path(&self) -> String {
        path_of(&self.uuid)
    }
}

/// What udev calls a partition by its own number.
pub fn path_of(uuid: &str) -> String {
    format!("/dev/disk/by-partuuid/{uuid}")
}
