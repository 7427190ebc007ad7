//! From the file's shape to a checked layout.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::disks::{self, Users};
use super::raw::{Raw, RawVolume};
use super::words::{Name, Owner};
use super::{Content, Disk, Layout, Partition, Volume, pool};
use crate::config::{ConfigError, Origin, Section, Setting};

/// Where the kernel and the system itself have their file systems.
const SYSTEM: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// Makes the layout out of `raw`, which was read from `file`.
pub(super) fn check(raw: &Raw, origin: &Origin, file: &Path) -> Result<Layout, ConfigError> {
    let users = Users { origin, raw };
    let mut disks = Vec::new();
    for (name, raw) in &raw.disk {
        disks.push(disks::disk(name, raw, &users)?);
    }
    if disks.is_empty() {
        let expected = "at least one disk is expected: [disk.<name>] with a device or a serial";
        return Err(users.setting("disk", "").refuse(expected));
    }
    disks::all_differ(&disks, origin)?;
    let pool = raw.pool.as_ref().map(|raw| pool::pool(raw, &disks, origin)).transpose()?;
    let datasets = pool::datasets(raw, pool.as_ref(), origin)?;
    let mut volumes = Vec::new();
    for (name, raw) in &raw.volume {
        volumes.push(volume(name, raw, &disks, &volumes, origin)?);
    }
    let layout = Layout { file: file.to_owned(), disks, pool, datasets, volumes };
    everything_is_used(&layout, origin)?;
    mountpoints_differ(&layout, origin)?;
    Ok(layout)
}

pub(super) const NAME: &str = "a name is 1 to 23 of a-z 0-9 -, not beginning with -";

pub(super) fn name(setting: &Setting) -> Result<Name, ConfigError> {
    Name::parse(setting.text()?).ok_or_else(|| setting.refuse(NAME))
}

pub(super) fn absolute(setting: &Setting) -> Result<PathBuf, ConfigError> {
    let text = setting.text()?;
    let path = PathBuf::from(text);
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let written_so = path.components().collect::<PathBuf>().as_os_str() == text;
    if !path.is_absolute() || !plain || !written_so || text.chars().any(char::is_control) {
        return Err(setting.refuse("an absolute path without . or .. in it is expected"));
    }
    Ok(path)
}

pub(super) fn find<'a>(disks: &'a [Disk], name: &Name) -> Option<(&'a Disk, &'a Partition)> {
    let all = disks.iter().flat_map(|disk| disk.partitions.iter().map(move |one| (disk, one)));
    all.into_iter().find(|(_, partition)| partition.name == *name)
}

pub(super) fn mountpoint(setting: &Setting) -> Result<Option<PathBuf>, ConfigError> {
    let path = absolute(setting)?;
    if path.starts_with("/nix") {
        return Err(setting.refuse(
            "the running system lives in /nix, and an empty file system over it would end it: \
             `snowbank format move-nix` moves it",
        ));
    }
    let system = SYSTEM.iter().find(|directory| path.starts_with(directory));
    if path == Path::new("/") || system.is_some() {
        return Err(setting.refuse("a directory that is not the system's own is expected"));
    }
    Ok(Some(path))
}

pub(super) fn owner(setting: &Setting) -> Result<Option<Owner>, ConfigError> {
    Owner::parse(setting.text()?).map(Some).ok_or_else(|| {
        setting.refuse("a user, or user:group, is expected, such as \"snowbank\" or \"1000:100\"")
    })
}

fn volume(
    name: &str,
    raw: &RawVolume,
    disks: &[Disk],
    others: &[Volume],
    origin: &Origin,
) -> Result<Volume, ConfigError> {
    let prefix = format!("volume.{name}.");
    let section = Section { origin, prefix: &prefix };
    let key = Setting::new(origin, "volume", name.into());
    let Some(partition) = section.get("partition", &raw.partition) else {
        return Err(
            key.refuse("partition = \"…\" is missing: the partition or whole disk it is on")
        );
    };
    let on = self::name(&partition)?;
    if find(disks, &on).is_none_or(|(_, found)| found.content != Content::Ext4) {
        return Err(partition.refuse("there is no partition of this name with type = \"ext4\""));
    }
    if others.iter().any(|other| other.partition == on) {
        return Err(partition.refuse("another volume is on this partition"));
    }
    let mut volume = Volume {
        name: Name::parse(name).ok_or_else(|| key.refuse(NAME))?,
        partition: on,
        mountpoint: None,
        owner: None,
        options: vec!["noatime".into(), "nodev".into()],
    };
    section.set("mountpoint", &raw.mountpoint, &mut volume.mountpoint, mountpoint)?;
    section.set("owner", &raw.owner, &mut volume.owner, owner)?;
    section.set("options", &raw.options, &mut volume.options, |setting| {
        setting.list()?.map(|item| option(&item)).collect()
    })?;
    Ok(volume)
}

fn option(setting: &Setting) -> Result<String, ConfigError> {
    let text = setting.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=.:".contains(&byte);
    if text.is_empty() || text.starts_with('-') || !text.bytes().all(allowed) {
        return Err(setting.refuse("an option of mount is expected, such as \"noatime\""));
    }
    Ok(text.to_owned())
}

/// A partition for a pool that does not name it would never be filled.
fn everything_is_used(layout: &Layout, origin: &Origin) -> Result<(), ConfigError> {
    let of_pool =
        |name: &Name| layout.pool.as_ref().is_some_and(|pool| pool.partitions.contains(name));
    for disk in &layout.disks {
        let mut unused =
            disk.partitions.iter().filter(|one| one.content == Content::Zfs && !of_pool(&one.name));
        if let Some(partition) = unused.next() {
            let key = format!("disk.{}.partitions", disk.name);
            let setting = Setting::new(origin, key, partition.name.as_str().into());
            return Err(setting.refuse("this is for a pool: name it in pool.partitions"));
        }
    }
    Ok(())
}

fn mountpoints_differ(layout: &Layout, origin: &Origin) -> Result<(), ConfigError> {
    let of_datasets =
        layout.datasets.iter().map(|one| (format!("dataset.{}", one.name), &one.mountpoint));
    let of_volumes =
        layout.volumes.iter().map(|one| (format!("volume.{}", one.name), &one.mountpoint));
    let mut seen = BTreeSet::new();
    for (key, mountpoint) in of_datasets.chain(of_volumes) {
        let Some(path) = mountpoint else { continue };
        if !seen.insert(path) {
            let text = path.display().to_string();
            let setting = Setting::new(origin, format!("{key}.mountpoint"), text.into());
            return Err(setting.refuse("something else of this layout is mounted there"));
        }
    }
    Ok(())
}
