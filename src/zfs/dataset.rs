//! Datasets: what there is, and making, changing and destroying them.
//!
//! A change is a [`Command`] made by a function here and run by [`Zfs::run`], so that what a dry run
//! prints and what is run are one thing.

use std::path::{Path, PathBuf};

use super::command::Command;
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::DatasetName;
use super::text::{Ratio, columns, limit, number, optional, optional_number, ours};

/// The columns that are asked for, in the order of [`Dataset::parse`]. The mount point is last: it
/// may hold a tab.
const COLUMNS: &str = "name,type,guid,used,available,referenced,logicalused,quota,refquota,\
                       compressratio,usedbysnapshots,mounted,readonly,origin,\
                       receive_resume_token,mountpoint";

/// A file system or volume. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its full name.
    pub name: DatasetName,
    /// What it is.
    pub kind: Kind,
    /// Its identity, which survives renaming and differs between a dataset and its copy.
    pub guid: u64,
    /// What it and everything below it take, with snapshots and reservations.
    pub used: u64,
    /// What may still be written to it: the least that quotas and the pool leave. Follows what was
    /// deleted only with the next transaction group, up to 5 s later.
    pub available: u64,
    /// What can be read through it.
    pub referenced: u64,
    /// What `used` would be without compression.
    pub logical_used: u64,
    /// The limit on `used`.
    pub quota: Option<u64>,
    /// The limit on `referenced`.
    pub refquota: Option<u64>,
    /// How much smaller it is than what was written.
    pub compress_ratio: Ratio,
    /// What would come back if all its snapshots were destroyed.
    pub used_by_snapshots: u64,
    /// Whether it is mounted now.
    pub mounted: bool,
    /// Whether it may not be written to.
    pub readonly: bool,
    /// The full name of the snapshot that it is a clone of, which may be one that Snowbank would not
    /// give.
    pub origin: Option<String>,
    /// Where it is mounted when it is.
    pub mountpoint: Mountpoint,
    /// With what an interrupted stream into it goes on; none where none was interrupted.
    pub receive_resume_token: Option<ResumeToken>,
}

/// What a dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file system, which is mounted.
    Filesystem,
    /// A volume, which is a block device.
    Volume,
}

/// Where a dataset is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mountpoint {
    /// By ZFS, at this path.
    Path(PathBuf),
    /// Nowhere; a volume has none either.
    None,
    /// Where `/etc/fstab` or the system's units say.
    Legacy,
}

impl Mountpoint {
    /// The path, if ZFS knows it.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::None | Self::Legacy => None,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" | "-" => Ok(Self::None),
            "legacy" => Ok(Self::Legacy),
            _ if text.starts_with('/') => Ok(Self::Path(text.into())),
            _ => Err(format!("{text:?} is not a mount point")),
        }
    }
}

/// What an interrupted stream goes on with: opaque to all but ZFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeToken(Box<str>);

impl ResumeToken {
    /// Checks that a text can be a token: hexadecimal numbers with `-` between them.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.starts_with(|first: char| first.is_ascii_hexdigit())
            && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        valid.then(|| Self(text.into()))
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Dataset {
    /// Reads a line of `zfs list -Hp` with the columns that [`Zfs::list`] asks for; the error says
    /// what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let [
            name,
            kind,
            guid,
            used,
            available,
            referenced,
            logical_used,
            quota,
            refquota,
            ratio,
            by_snapshots,
            mounted,
            readonly,
            origin,
            token,
            mountpoint,
        ] = columns::<16>(line)?;
        let name = DatasetName::parse(name).map_err(|error| error.to_string())?;
        let in_column = |column: &str, what: String| format!("{column} of {name}: {what}");
        let bytes =
            |column: &'static str, text: &str| number(text).map_err(|what| in_column(column, what));
        let limit = |column, text| limit(text).map_err(|what| in_column(column, what));
        let token = optional(token).map(|token| {
            ResumeToken::parse(token).ok_or_else(|| in_column("receive_resume_token", token.into()))
        });
        Ok(Self {
            kind: match kind {
                "filesystem" => Kind::Filesystem,
                "volume" => Kind::Volume,
                _ => return Err(in_column("type", format!("{kind:?} is unknown"))),
            },
            guid: bytes("guid", guid)?,
            used: bytes("used", used)?,
            available: bytes("available", available)?,
            referenced: bytes("referenced", referenced)?,
            logical_used: bytes("logicalused", logical_used)?,
            quota: limit("quota", quota)?,
            refquota: limit("refquota", refquota)?,
            compress_ratio: Ratio::parse(ratio)?,
            used_by_snapshots: optional_number(by_snapshots)
                .map_err(|what| in_column("usedbysnapshots", what))?
                .unwrap_or(0),
            mounted: mounted == "yes",
            readonly: readonly == "on",
            origin: optional(origin).map(String::from),
            mountpoint: Mountpoint::parse(mountpoint)
                .map_err(|what| in_column("mountpoint", what))?,
            receive_resume_token: token.transpose()?,
            name,
        })
    }
}

impl Zfs {
    /// The dataset `root`, with everything below it where `recursive`, but what has a name that
    /// Snowbank would not give.
    pub fn list(&self, root: &DatasetName, recursive: bool) -> Result<Vec<Dataset>, ZfsError> {
        let depth: &[&str] = if recursive { &["-r"] } else { &[] };
        let command = Command::zfs(["list", "-Hp", "-t", "filesystem,volume", "-o", COLUMNS]);
        let command = command.args(depth.iter().copied()).arg(root.as_str());
        self.parse(&command, |text| ours(text).map(Dataset::parse).collect())
    }

    /// The dataset `name`, or none where there is none. That there is none is known from the list of
    /// all names, not from the wording of a refusal; and the list passes over pools that are suspended,
    /// though they are there.
    pub fn find_dataset(&self, name: &DatasetName) -> Result<Option<Dataset>, ZfsError> {
        match self.list(name, false) {
            Ok(datasets) => Ok(datasets.into_iter().find(|dataset| dataset.name == *name)),
            Err(refusal @ ZfsError::Failed { .. }) => {
                let (names, pool) = (self.names()?, name.pool());
                let is_passed_over = || -> Result<bool, ZfsError> {
                    Ok(!names.contains(&pool.root()) && self.pool(&pool)?.is_some())
                };
                if names.contains(name) || is_passed_over()? { Err(refusal) } else { Ok(None) }
            }
            Err(error) => Err(error),
        }
    }

    /// The names of all datasets of all pools. One that Snowbank would not accept as a name, of
    /// somebody else, is left out.
    pub fn names(&self) -> Result<Vec<DatasetName>, ZfsError> {
        let command = Command::zfs(["list", "-H", "-t", "filesystem,volume", "-o", "name"]);
        let text = self.read_lossy(&command)?;
        Ok(text.lines().filter_map(|line| DatasetName::parse(line).ok()).collect())
    }
}

/// Makes a dataset with properties of its own, and does not mount it: mounting takes root.
pub fn create(dataset: &DatasetName, properties: &[(&str, &str)]) -> Command {
    Command::zfs(["create", "-u"]).options(properties).arg(dataset.as_str()).change()
}

/// Mounts a file system where its `mountpoint` says. Takes root.
pub fn mount(dataset: &DatasetName) -> Command {
    Command::zfs(["mount", dataset.as_str()]).change()
}

/// Unmounts a file system, if nothing uses it. Takes root.
pub fn unmount(dataset: &DatasetName) -> Command {
    Command::zfs(["unmount", dataset.as_str()]).change()
}

/// Destroys a dataset that has neither children nor snapshots; with `recursive` those go first. A
/// snapshot that is held, or has a clone elsewhere, makes ZFS refuse.
pub fn destroy(dataset: &DatasetName, recursive: bool) -> Command {
    let depth: &[&str] = if recursive { &["-r"] } else { &[] };
    Command::zfs(["destroy"]).args(depth.iter().copied()).arg(dataset.as_str()).change()
}

/// Gives a dataset another name within its pool; what is below it moves along.
pub fn rename(from: &DatasetName, to: &DatasetName) -> Command {
    Command::zfs(["rename", from.as_str(), to.as_str()]).change()
}

#[cfg(test)]
mod tests;
