//! What the system says about itself: its number, its users, its directories, its datasets.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::facts::{Dataset, Directory};
use super::super::layout::Owner;
use super::super::plan::NEW;
use super::InspectError;
use crate::zfs::mounts::Mounts;
use crate::zfs::name::DatasetName;
use crate::zfs::{Zfs, ZfsError};

/// What the module was told; 0 where it was told nothing.
const PARAMETER: &str = "/sys/module/spl/parameters/spl_hostid";
/// Where the number is otherwise: four bytes, the lowest first.
const FILE: &str = "/etc/hostid";

/// The number that this machine writes into the pools that it uses, found as OpenZFS finds it; 0
/// where it has none.
pub(super) fn host_id() -> u32 {
    let parameter = std::fs::read_to_string(PARAMETER).ok();
    let parameter = parameter.and_then(|text| text.trim().parse().ok()).filter(|id| *id != 0);
    parameter.unwrap_or_else(|| {
        let bytes = std::fs::read(FILE).unwrap_or_default();
        bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    })
}

/// The kernel's name of a device, or `path` itself where it leads to none.
pub(super) fn node_of(path: &str) -> String {
    let node = std::fs::canonicalize(path);
    node.map_or_else(|_| path.to_owned(), |node| node.to_string_lossy().into_owned())
}

/// What is at each of these places.
pub(super) fn directories(
    paths: impl Iterator<Item = PathBuf>,
) -> Result<BTreeMap<PathBuf, Directory>, InspectError> {
    let mounts = Mounts::read()
        .map_err(|source| InspectError::Io { path: "/proc/self/mountinfo".into(), source })?;
    paths.map(|path| Ok((path.clone(), directory(&path, &mounts)?))).collect()
}

fn directory(path: &Path, mounts: &Mounts) -> Result<Directory, InspectError> {
    let failed = |source| InspectError::Io { path: path.into(), source };
    let real = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Directory::Missing),
        Err(error) => return Err(failed(error)),
    };
    if let Some(mount) = mounts.at(&real) {
        return Ok(Directory::Mounted(node_of(&mount.source)));
    }
    match std::fs::read_dir(&real) {
        Ok(mut entries) => match entries.next().transpose().map_err(failed)? {
            None => Ok(Directory::Empty),
            Some(_) => Ok(Directory::Occupied),
        },
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Directory::Occupied),
        Err(error) => Err(failed(error)),
    }
}

/// The datasets of a pool.
pub(super) fn datasets(
    zfs: &Zfs,
    root: &DatasetName,
) -> Result<BTreeMap<DatasetName, Dataset>, ZfsError> {
    let names: Vec<_> = zfs.names()?.into_iter().filter(|name| name.is_within(root)).collect();
    let mut datasets: BTreeMap<DatasetName, Dataset> = BTreeMap::new();
    for property in zfs.get(&names, &["mountpoint", "canmount", "mounted", NEW])? {
        let Ok(name) = DatasetName::parse(&property.of) else { continue };
        let dataset = datasets.entry(name).or_insert_with(|| Dataset {
            mountpoint: "-".into(),
            can_mount: false,
            mounted: false,
            is_new: false,
        });
        match (property.name.as_str(), property.value.as_str()) {
            ("mountpoint", value) => dataset.mountpoint = value.into(),
            ("canmount", value) => dataset.can_mount = ["on", "noauto"].contains(&value),
            ("mounted", value) => dataset.mounted = value == "yes",
            // It would be inherited by datasets that are made below it by somebody else.
            (_, value) => {
                dataset.is_new =
                    value == "yes" && property.source == crate::zfs::property::Source::Local;
            }
        }
    }
    Ok(datasets)
}

/// A random UUID, version 4 (RFC 9562, 5.4).
pub(super) fn new_uuid() -> Result<String, InspectError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| InspectError::Io {
        path: "getrandom".into(),
        source: io::Error::other(error),
    })?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// The users and groups of this machine.
pub(super) struct Accounts {
    /// The text of `/etc/passwd`.
    users: String,
    /// The text of `/etc/group`.
    groups: String,
}

impl Accounts {
    pub(super) fn read() -> Result<Self, InspectError> {
        let read = |path: &str| match std::fs::read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(InspectError::Io { path: path.into(), source }),
        };
        Ok(Self { users: read("/etc/passwd")?, groups: read("/etc/group")? })
    }

    /// The numbers of user and group; without a group those of the user's own. A number without a
    /// name is its own group's, too.
    pub(super) fn numbers(&self, owner: &Owner) -> Option<(u32, u32)> {
        let user = line(&self.users, &owner.user);
        let number = |line: &str, column| line.split(':').nth(column)?.parse::<u32>().ok();
        let uid = match user {
            Some(line) => number(line, 2)?,
            None => owner.user.parse().ok()?,
        };
        let gid = match &owner.group {
            Some(group) => match line(&self.groups, group) {
                Some(line) => number(line, 2)?,
                None => group.parse().ok()?,
            },
            None => user.map_or(Some(uid), |line| number(line, 3))?,
        };
        Some((uid, gid))
    }
}

/// The line of a name.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find(|line| line.split(':').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zfs::testing::Fake;

    #[test]
    fn owners_are_names_or_numbers() {
        let accounts = Accounts {
            users: "root:x:0:0:root:/root:/bin/sh\nrunner:x:30:100::/:/bin/false\n".into(),
            groups: "root:x:0:\nusers:x:100:\nkvm:x:36:runner\n".into(),
        };
        for (text, numbers) in [
            ("root", Some((0, 0))),
            ("runner", Some((30, 100))),
            ("runner:kvm", Some((30, 36))),
            ("1000:kvm", Some((1000, 36))),
            ("1000", Some((1000, 1000))),
            ("nobody", None),
            ("runner:nobody", None),
            ("4294967296", None),
        ] {
            assert_eq!(accounts.numbers(&Owner::parse(text).unwrap()), numbers, "{text}");
        }
        assert!(Accounts::read().unwrap().numbers(&Owner::parse("root").unwrap()).is_some());
    }

    #[test]
    fn a_uuid_is_new_each_time_and_of_version_four() {
        let (one, other) = (new_uuid().unwrap(), new_uuid().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15], &one[8..9]), (36, "4", "-"));
        assert!(["8", "9", "a", "b"].contains(&&one[19..20]), "{one}");
    }

    #[test]
    fn what_is_in_a_directory_is_seen() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        std::fs::create_dir(path("empty")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let mounts = Mounts::read().unwrap();
        let seen = |path: &Path| directory(path, &mounts).unwrap();
        assert_eq!(seen(&path("empty")), Directory::Empty);
        assert_eq!(seen(&path("missing")), Directory::Missing);
        assert_eq!(seen(&path("file")), Directory::Occupied);
        assert_eq!(seen(top.path()), Directory::Occupied);
        assert!(matches!(seen(Path::new("/proc")), Directory::Mounted(_)));
    }

    #[test]
    fn a_dataset_is_new_only_if_it_says_so_itself() {
        let fake = Fake::new(
            "if [ \"$1\" = list ]; then printf 'cache\\ncache/a\\ncache/a/b\\nother\\n'; else\n\
             for d in cache cache/a cache/a/b; do\n\
             printf \"$d\\tmountpoint\\tlocal\\t/$d\\n$d\\tcanmount\\tdefault\\tnoauto\\n\"\n\
             printf \"$d\\tmounted\\t-\\tyes\\n\"; done\n\
             printf 'cache/a\\tsnowbank:new\\tlocal\\tyes\\n'\n\
             printf 'cache/a/b\\tsnowbank:new\\tinherited from cache/a\\tyes\\n'; fi",
        );
        let root = DatasetName::parse("cache").unwrap();
        let datasets = datasets(&fake.zfs, &root).unwrap();
        let new: Vec<_> = datasets.values().map(|dataset| dataset.is_new).collect();
        assert_eq!(new, [false, true, false]);
        let last = &datasets[&DatasetName::parse("cache/a/b").unwrap()];
        assert_eq!(
            (last.mountpoint.as_str(), last.can_mount, last.mounted),
            ("/cache/a/b", true, true)
        );
    }
}
