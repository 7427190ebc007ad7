//! `[disk.<name>]` and its partitions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::check::{NAME, absolute, name};
use super::raw::{self, Raw, RawDisk, RawPartition};
use super::words::{Name, PartLabel};
use super::{Content, Disk, FoundBy, MIB, Partition, Size};
use crate::config::{ConfigError, Origin, Section, Setting};

/// FAT32 needs 65 525 clusters; with clusters of one sector these are 32 MiB and a little.
const SMALLEST_ESP: u64 = 64 * MIB;
/// `SPA_MINDEVSIZE` of OpenZFS.
const SMALLEST_VDEV: u64 = 64 * MIB;
const SMALLEST_EXT4: u64 = 16 * MIB;
/// What `sfdisk` reads about them has to fit into [`MAX_INPUT`](crate::zfs::command::MAX_INPUT): at
/// most 200 bytes for each.
const MAX_PARTITIONS: usize = 16;
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// Who uses a disk that has no list of partitions.
pub(super) struct Users<'a> {
    pub(super) origin: &'a Origin,
    pub(super) raw: &'a Raw,
}

impl Users<'_> {
    pub(super) fn setting(&self, key: &str, text: &str) -> Setting {
        Setting::new(self.origin, key, Value::String(text.to_owned()))
    }

    /// What a whole disk is for.
    fn content(&self, name: &str) -> Option<Content> {
        let is_name = |value: &Value| value.as_str() == Some(name);
        let pool = self.raw.pool.as_ref().and_then(|pool| pool.partitions.as_ref());
        if pool.and_then(Value::as_array).is_some_and(|list| list.iter().any(is_name)) {
            return Some(Content::Zfs);
        }
        let mut volumes = self.raw.volume.values();
        volumes
            .any(|volume| volume.partition.as_ref().is_some_and(is_name))
            .then_some(Content::Ext4)
    }
}

pub(super) fn disk(name: &str, raw: &RawDisk, users: &Users<'_>) -> Result<Disk, ConfigError> {
    let prefix = format!("disk.{name}.");
    let section = Section { origin: users.origin, prefix: &prefix };
    let key = users.setting("disk", name);
    let parsed = Name::parse(name).ok_or_else(|| key.refuse(NAME))?;
    let mut disk = Disk {
        found_by: found_by(&section, raw, &key)?,
        wait: DEFAULT_WAIT,
        optional: false,
        partitions: Vec::new(),
        name: parsed.clone(),
    };
    section.set("wait", &raw.wait, &mut disk.wait, |setting| {
        setting.duration(Duration::ZERO..=Duration::from_secs(3600))
    })?;
    section.set("optional", &raw.optional, &mut disk.optional, Setting::boolean)?;
    match section.get("partitions", &raw.partitions) {
        Some(setting) => disk.partitions = partitions(&setting)?,
        None => {
            let content = users.content(name).ok_or_else(|| {
                key.refuse(
                    "nothing uses this disk: name it in pool.partitions, in the partition of a \
                     volume, or list its partitions",
                )
            })?;
            disk.partitions.push(Partition {
                label: PartLabel::of(&parsed),
                name: parsed,
                size: Size::Rest,
                content,
                keep: false,
                file_system_label: name.chars().take(content.longest_label()).collect(),
            });
        }
    }
    if disk.optional && disk.partitions.iter().any(|one| one.content == Content::Zfs) {
        let setting = Setting::new(users.origin, format!("{prefix}optional"), true.into());
        return Err(setting.refuse("the pool is on this disk, and a pool needs all of its disks"));
    }
    Ok(disk)
}

/// Exactly one of the ways to tell the disk from others.
fn found_by(section: &Section<'_>, raw: &RawDisk, key: &Setting) -> Result<FoundBy, ConfigError> {
    let device = section.get("device", &raw.device);
    let serial = section.get("serial", &raw.serial);
    let label = section.get("partlabel", &raw.partlabel);
    match (device, serial, label) {
        (Some(device), None, None) => link(&device).map(FoundBy::Device),
        (None, Some(serial), None) => {
            let text = serial.text()?;
            let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            if !printable || !(1..=128).contains(&text.len()) || text.trim() != text {
                return Err(serial.refuse("a serial number as `lsblk -o SERIAL` shows it is expected"));
            }
            Ok(FoundBy::Serial(text.to_owned()))
        }
        (None, None, Some(label)) => part_label(&label).map(|label| {
            FoundBy::PartLabel(label.as_str().to_owned())
        }),
        _ => Err(key.refuse(
            "exactly one of device (\"/dev/disk/by-id/…\"), serial, or partlabel (a partition that is \
             on it already) is expected",
        )),
    }
}

/// Whether it is a link, and not a name that the kernel gives anew at every boot, is seen when the
/// disk is looked for.
fn link(setting: &Setting) -> Result<PathBuf, ConfigError> {
    let path = absolute(setting)?;
    if !path.starts_with("/dev") || path == Path::new("/dev") {
        let expected = "a link below /dev is expected, such as \"/dev/disk/by-id/…\"";
        return Err(setting.refuse(expected));
    }
    Ok(path)
}

fn part_label(setting: &Setting) -> Result<PartLabel, ConfigError> {
    PartLabel::parse(setting.text()?).ok_or_else(|| {
        setting.refuse(
            "the GPT name of a partition is 1 to 32 of letters, digits, spaces and _ . : -, and does \
             not end with .new",
        )
    })
}

fn partitions(setting: &Setting) -> Result<Vec<Partition>, ConfigError> {
    let mut partitions: Vec<Partition> = Vec::new();
    for (position, entry) in setting.list()?.enumerate() {
        if partitions.last().is_some_and(|last| last.size == Size::Rest && !last.keep) {
            return Err(entry.refuse("nothing is left behind a partition of the size \"rest\""));
        }
        let entry = entry.with_key(format!("{}[{position}]", setting.key()));
        partitions.push(partition(&entry)?);
    }
    if !(1..=MAX_PARTITIONS).contains(&partitions.len()) {
        return Err(setting.refuse("at least one partition, and at most 16, are expected"));
    }
    Ok(partitions)
}

fn partition(setting: &Setting) -> Result<Partition, ConfigError> {
    let raw: RawPartition = raw::partition(setting)?;
    let prefix = format!("{}.", setting.key());
    let section = Section { origin: setting.origin(), prefix: &prefix };
    let missing = |what: &str| setting.refuse(format!("{what} is missing"));
    let name = match section.get("name", &raw.name) {
        Some(setting) => name(&setting)?,
        None => return Err(missing("its name")),
    };
    let kinds = [("esp", Content::Esp), ("ext4", Content::Ext4), ("zfs", Content::Zfs)];
    let content = match section.get("type", &raw.r#type) {
        Some(setting) => setting.one_of(&kinds)?,
        None => return Err(missing("its type (\"esp\", \"ext4\" or \"zfs\")")),
    };
    let mut keep = false;
    section.set("keep", &raw.keep, &mut keep, Setting::boolean)?;
    if keep && content == Content::Zfs {
        let expected = "a partition of the pool is used as it is found; keep is for esp and ext4";
        return Err(setting.refuse(expected));
    }
    let size = match section.get("size", &raw.size) {
        Some(setting) => size(&setting, content)?,
        None if keep => Size::Rest,
        None => return Err(missing("its size (such as \"20G\", or \"rest\")")),
    };
    let mut label = PartLabel::of(&name);
    section.set("partlabel", &raw.partlabel, &mut label, part_label)?;
    let longest = content.longest_label();
    let mut file_system_label: String = name.as_str().chars().take(longest).collect();
    section.set("label", &raw.label, &mut file_system_label, |setting| {
        let text = setting.text()?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = (1..=longest).contains(&text.len()) && !text.starts_with('-');
        if !fits || !text.bytes().all(allowed) {
            return Err(setting.refuse(format!(
                "the label of a file system is 1 to {longest} of letters, digits and _ . - here"
            )));
        }
        Ok(text.to_owned())
    })?;
    Ok(Partition { name, label, size, content, keep, file_system_label })
}

fn size(setting: &Setting, content: Content) -> Result<Size, ConfigError> {
    if setting.value().as_str() == Some("rest") {
        return Ok(Size::Rest);
    }
    let least = match content {
        Content::Esp => SMALLEST_ESP,
        Content::Ext4 => SMALLEST_EXT4,
        Content::Zfs => SMALLEST_VDEV,
    };
    let bytes = setting.size(least..=1 << 50)?;
    if !bytes.is_multiple_of(MIB) {
        return Err(setting.refuse("a whole number of MiB is expected, such as \"512M\""));
    }
    Ok(Size::Bytes(bytes))
}

impl Content {
    /// The longest label that its file system holds.
    pub(super) const fn longest_label(self) -> usize {
        match self {
            Self::Esp => 11,
            Self::Ext4 | Self::Zfs => 16,
        }
    }
}

/// Names, labels and the ways to find disks are each there once.
pub(super) fn all_differ(disks: &[Disk], origin: &Origin) -> Result<(), ConfigError> {
    let (mut names, mut labels, mut ways) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for disk in disks {
        let refuse = |text: &str, expected: &str| {
            let key = format!("disk.{}.partitions", disk.name);
            Err(Setting::new(origin, key, text.into()).refuse(expected))
        };
        for partition in &disk.partitions {
            if !names.insert(&partition.name) {
                return refuse(partition.name.as_str(), "two partitions have this name");
            }
            if !labels.insert(&partition.label) {
                return refuse(partition.label.as_str(), "two partitions have this GPT name");
            }
        }
        if ways.contains(&&disk.found_by) {
            let setting = Setting::new(origin, "disk", disk.name.as_str().into());
            return Err(setting.refuse("another disk of this layout is found in the same way"));
        }
        ways.push(&disk.found_by);
    }
    Ok(())
}
