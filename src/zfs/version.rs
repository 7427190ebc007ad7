//! Which OpenZFS answers.

use std::fmt;

use super::command::Command;
use super::error::ZfsError;
use super::handle::Zfs;
use super::text::shorten;

/// The first version whose programs speak JSON (`-j`).
const JSON: Version = Version { major: 2, minor: 3, patch: 0 };
/// The first version with block cloning and its properties of a pool.
const BLOCK_CLONING: Version = Version { major: 2, minor: 2, patch: 0 };

/// A version of OpenZFS, such as 2.3.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 2 since 2020.
    pub major: u32,
    /// Features come with it.
    pub minor: u32,
    /// Fixes come with it.
    pub patch: u32,
}

/// The two halves of OpenZFS, which can differ after an upgrade until the next reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of the programs.
    pub userland: Version,
    /// Of the kernel's module.
    pub kernel: Version,
}

impl Version {
    /// Whether the programs can print JSON: those of 2.3 and later.
    pub fn speaks_json(self) -> bool {
        self >= JSON
    }

    /// Whether pools may have cloned blocks: 2.2 and later.
    pub fn clones_blocks(self) -> bool {
        self >= BLOCK_CLONING
    }

    /// Reads `2.3.9`, whatever a distribution appends: `2.3.9-0+deb13u1`, `2.4.0-rc3`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.splitn(3, '.');
        let mut next = || {
            let number = numbers.next()?;
            let end = number.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(number.len());
            number[..end].parse().ok()
        };
        let (major, minor) = (next()?, next()?);
        Some(Self { major, minor, patch: next().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Versions {
    pub(super) fn ask(zfs: &Zfs) -> Result<Self, ZfsError> {
        zfs.parse(&Command::zfs(["version"]), Self::parse)
    }

    /// Reads the two lines of `zfs version`, which are the same in all versions.
    fn parse(text: &str) -> Result<Self, String> {
        let line = |prefix: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
            // `zfs-` begins the other line too.
            lines.find_map(Version::parse)
        };
        match (line("zfs-"), line("zfs-kmod-")) {
            (Some(userland), Some(kernel)) => Ok(Self { userland, kernel }),
            _ => Err(format!("{:?} is not the two lines of a version", shorten(text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_each_version_are_read() {
        let text = include_str!("samples/2.1.11/version.out");
        let versions = Versions::parse(text).unwrap();
        assert_eq!(
            (versions.userland.to_string(), versions.kernel.to_string()),
            ("2.1.11".into(), "2.1.11".into())
        );
        assert!(!versions.userland.speaks_json() && !versions.userland.clones_blocks());
        let text = include_str!("samples/2.3.9/version.out");
        let versions = Versions::parse(text).unwrap();
        assert_eq!(versions.kernel, Version { major: 2, minor: 3, patch: 9 });
        assert!(versions.userland.speaks_json());
    }

    #[test]
    fn halves_that_differ_and_versions_to_come_are_read() {
        let versions = Versions::parse("zfs-2.4.0-rc3\nzfs-kmod-2.10-1\n").unwrap();
        assert_eq!((versions.userland.minor, versions.kernel.minor), (4, 10));
        assert!(Version { major: 3, minor: 0, patch: 0 }.speaks_json());
        for text in
            ["", "zfs-2.3.9\n", "zfs-kmod-2.3.9\n", "zfs-x\nzfs-kmod-y\n", "zfs-2\nzfs-kmod-2"]
        {
            assert!(Versions::parse(text).is_err(), "{text:?}");
        }
    }
}
