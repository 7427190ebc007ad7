//! What the disks of a machine should look like: one TOML file becomes a checked [`Layout`].
//!
//! Nothing here has looked at a disk. A mistake is a [`ConfigError`]: one line with the file, the
//! key, the value and what is allowed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Table;

use crate::config::{self, ConfigError, Origin};
use crate::zfs::name::{DatasetName, PoolName};
use crate::zfs::properties::Role;

mod check;
mod disks;
mod pool;
mod raw;
#[cfg(test)]
mod tests;
mod words;

pub use words::{Name, Owner, PartLabel};

/// A second disk that is the pool, and a third one with an ext4 file system: commented, to be copied.
pub const EXAMPLE_DEDICATED: &str = include_str!("../../../nixos/layouts/dedicated.toml");
/// One disk with everything on it: commented, to be copied.
pub const EXAMPLE_SINGLE_DISK: &str = include_str!("../../../nixos/layouts/single-disk.toml");

/// What partitions are aligned to, and what both ends of a disk are left free by, in bytes.
pub const MIB: u64 = 1 << 20;

/// What the disks should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The disks, by name.
    pub disks: Vec<Disk>,
    /// The pool, if there is to be one.
    pub pool: Option<Pool>,
    /// The datasets of the pool, parents before children.
    pub datasets: Vec<Dataset>,
    /// The ext4 file systems that are to be mounted.
    pub volumes: Vec<Volume>,
}

/// One disk: how it is found, and what is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What the layout calls it.
    pub name: Name,
    /// How it is told from others, whatever the kernel calls it today.
    pub found_by: FoundBy,
    /// How long it may take to appear, from the start of the command.
    pub wait: Duration,
    /// Whether the rest of the layout is made without it when it does not appear.
    pub optional: bool,
    /// What is on it, in the order of its table; at least one.
    pub partitions: Vec<Partition>,
}

/// What a disk is known by. Never a name such as `/dev/nvme1n1`, which the kernel gives anew at
/// every boot, in the order in which disks answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// A link that udev makes, such as one in `/dev/disk/by-id`.
    Device(PathBuf),
    /// The serial number, as `lsblk -o SERIAL` shows it.
    Serial(String),
    /// The GPT name of a partition that is on it already.
    PartLabel(String),
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What the layout calls it; no other partition of the layout has this name.
    pub name: Name,
    /// Its name in the GPT, by which it is found again.
    pub label: PartLabel,
    /// How large it is made.
    pub size: Size,
    /// What is in it.
    pub content: Content,
    /// Whether it must be there already; then it is never made and never changed.
    pub keep: bool,
    /// The name that its file system gets; a pool has none.
    pub file_system_label: String,
}

/// How large a partition is made. One that is there already is left as large as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, a multiple of 1 MiB.
    Bytes(u64),
    /// What the others leave.
    Rest,
}

/// What is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The EFI system partition: FAT32.
    Esp,
    /// An ext4 file system.
    Ext4,
    /// A part of the pool.
    Zfs,
}

/// The pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Which pool of that name is meant, if it is there already.
    pub guid: Option<u64>,
    /// The partitions that it is made of.
    pub partitions: Vec<Name>,
    /// Whether each partition holds everything; otherwise what is on them is spread over all.
    pub mirror: bool,
    /// The exponent of the smallest block, 9 to 16; it cannot be changed later.
    pub ashift: u8,
    /// Whether freed space is given back to the disk as it becomes free.
    pub autotrim: bool,
}

/// A dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its whole name, with the pool's.
    pub name: DatasetName,
    /// Which rows of the property table it has; `None` has none but those of the layout.
    pub role: Option<Role>,
    /// Where it is mounted; `None` leaves it to the dataset above.
    pub mountpoint: Option<PathBuf>,
    /// Who owns its top directory when it is new; `None` is root.
    pub owner: Option<Owner>,
    /// Properties beside those of its kind, or instead of them.
    pub properties: Vec<(String, String)>,
}

/// An ext4 file system that is mounted for somebody to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What the layout calls it.
    pub name: Name,
    /// Where it is.
    pub partition: Name,
    /// Where it is mounted; `None` leaves that to the system's configuration.
    pub mountpoint: Option<PathBuf>,
    /// Who owns its top directory when it is new; `None` is root.
    pub owner: Option<Owner>,
    /// How it is mounted, as in the fourth column of fstab.
    pub options: Vec<String>,
}

impl Layout {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    /// As [`load`](Self::load), of the text that was read from `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let table: Table = text.parse().map_err(|error| config::syntax(file, text, &error))?;
        let origin = Origin::File(file.to_owned());
        raw::check_keys(&origin, &table)?;
        let raw =
            raw::Raw::deserialize(table).map_err(|error| config::syntax(file, text, &error))?;
        check::check(&raw, &origin, file)
    }

    /// The partition of that name, with the disk that it is on.
    pub fn partition(&self, name: &Name) -> Option<(&Disk, &Partition)> {
        self.disks.iter().find_map(|disk| {
            disk.partitions
                .iter()
                .find(|partition| partition.name == *name)
                .map(|partition| (disk, partition))
        })
    }

    /// The disks that the pool is on, each once.
    pub fn disks_of_pool(&self) -> impl Iterator<Item = &Disk> {
        let uses = |disk: &&Disk| {
            disk.partitions.iter().any(|partition| partition.content == Content::Zfs)
        };
        self.disks.iter().filter(uses)
    }
}
