//! Pools: size, health, errors, scrubs.

use std::io;

use super::command::Command;
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::PoolName;
use super::text::{Ratio, columns, number, optional_number, ours, shorten_lines};

pub mod status;
mod status_json;
mod status_text;

pub use self::status::{Health, PoolStatus, Scan, ScanKind, ScanState, Vdev};

/// The columns of `zpool list`. The guid is taken from here: the JSON of 2.3 cuts a property of more
/// than 2^63 down.
const COLUMNS: &str =
    "name,size,allocated,free,fragmentation,capacity,dedupratio,health,guid,readonly";
/// Columns that 2.2 brought.
const CLONE_COLUMNS: &str = ",bcloneused,bclonesaved";
/// How many lines of a pool's own report go into a log.
const REPORT_LINES: usize = 60;
/// How many events are told, the latest.
const MAX_EVENTS: usize = 50;

/// A pool and its numbers. Sizes are bytes. What can really be written is `available` of the pool's
/// dataset: `free` has what ZFS keeps for itself in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// All of it, without parity.
    pub size: u64,
    /// What is taken.
    pub allocated: u64,
    /// What is not.
    pub free: u64,
    /// How broken up the free space is, in percent; none where that is not known.
    pub fragmentation_percent: Option<u64>,
    /// How much is taken, in percent.
    pub capacity_percent: u64,
    /// How often one block stands for several, by deduplication.
    pub dedup_ratio: Ratio,
    /// How it is. `Online` says nothing about errors in files: see [`PoolStatus`].
    pub health: Health,
    /// Its identity, which survives renaming.
    pub guid: u64,
    /// Whether it was imported so that nothing can be written.
    pub readonly: bool,
    /// What cloned blocks take, and what they would take more if each were copied; none before 2.2.
    pub clones: Option<Clones>,
}

/// Blocks that are in several files, because a file was cloned. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clones {
    /// What they take.
    pub used: u64,
    /// What copies would take more.
    pub saved: u64,
}

/// A feature of a pool's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Such as `block_cloning`.
    pub name: String,
    /// `disabled`, `enabled` or `active`.
    pub state: String,
}

impl Pool {
    /// Reads a line of `zpool list -Hp` with the columns that [`Zfs::pools`] asks for; the error says
    /// what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let [name, size, allocated, free, fragmentation, capacity, dedup, health, guid, rest] =
            columns(line)?;
        let name = PoolName::parse(name).map_err(|error| error.to_string())?;
        let in_column =
            |column: &str, text| number(text).map_err(|what| format!("{column} of {name}: {what}"));
        let mut rest = rest.split('\t');
        let readonly = rest.next() == Some("on");
        let clones = match (rest.next(), rest.next()) {
            (Some(used), Some(saved)) => Some(Clones {
                used: optional_number(used)?.unwrap_or(0),
                saved: optional_number(saved)?.unwrap_or(0),
            }),
            _ => None,
        };
        Ok(Self {
            size: in_column("size", size)?,
            allocated: in_column("allocated", allocated)?,
            free: in_column("free", free)?,
            fragmentation_percent: optional_number(fragmentation)?,
            capacity_percent: in_column("capacity", capacity)?,
            dedup_ratio: Ratio::parse(dedup)?,
            health: Health::parse(health),
            guid: in_column("guid", guid)?,
            readonly,
            clones,
            name,
        })
    }
}

impl Zfs {
    /// All pools that are imported, but those with a name that Snowbank would not give.
    pub fn pools(&self) -> Result<Vec<Pool>, ZfsError> {
        let more = if self.versions()?.userland.clones_blocks() { CLONE_COLUMNS } else { "" };
        let command = Command::zpool(["list", "-Hp", "-o", &format!("{COLUMNS}{more}")]);
        self.parse(&command, |text| ours(text).map(Pool::parse).collect())
    }

    /// One pool, or none where it is not imported.
    pub fn pool(&self, name: &PoolName) -> Result<Option<Pool>, ZfsError> {
        Ok(self.pools()?.into_iter().find(|pool| pool.name == *name))
    }

    /// How a pool is, device by device, with the files that are lost.
    pub fn status(&self, pool: &PoolName) -> Result<PoolStatus, ZfsError> {
        if self.versions()?.userland.speaks_json() {
            let command =
                Command::zpool(["status", "-j", "-pP", "--json-int", "-v", pool.as_str()]);
            let text = self.read_lossy(&command)?;
            return status_json::parse(&text, pool)
                .map_err(|what| self.unreadable(&command, &what));
        }
        let command = Command::zpool(["status", "-pP", "-v", pool.as_str()]);
        let text = self.read_lossy(&command)?;
        let mut status =
            status_text::parse(&text, pool).map_err(|what| self.unreadable(&command, &what))?;
        if status.error_count.is_none() {
            // Who may not see the list of files may still see how many there are.
            let command = Command::zpool(["status", "-pP", pool.as_str()]);
            let text = self.read_lossy(&command)?;
            status =
                status_text::parse(&text, pool).map_err(|what| self.unreadable(&command, &what))?;
        }
        Ok(status)
    }

    /// The pool's own report, for a log: what an administrator sees first.
    pub fn report(&self, pool: &PoolName) -> Result<String, ZfsError> {
        let text = self.read_lossy(&Command::zpool(["status", "-v", pool.as_str()]))?;
        Ok(shorten_lines(&text, REPORT_LINES))
    }

    /// The features of a pool's format.
    pub fn features(&self, pool: &PoolName) -> Result<Vec<Feature>, ZfsError> {
        let command = Command::zpool(["get", "-Hp", "-o", "property,value", "all", pool.as_str()]);
        self.parse(&command, |text| {
            let features = text.lines().filter_map(|line| line.strip_prefix("feature@"));
            let feature = |line| {
                let [name, state] = columns(line)?;
                Ok(Feature { name: name.into(), state: state.into() })
            };
            features.map(feature).collect()
        })
    }

    /// The latest events of a pool, oldest first, as lines of time and class. Takes root.
    pub fn events(&self, pool: &PoolName) -> Result<Vec<String>, ZfsError> {
        let text = self.read_lossy(&Command::zpool(["events", "-H", pool.as_str()]))?;
        let mut latest: Vec<String> =
            text.lines().rev().take(MAX_EVENTS).map(String::from).collect();
        latest.reverse();
        Ok(latest)
    }
}

/// Starts a scrub: reads everything and repairs what it can. Takes root.
pub fn scrub(pool: &PoolName) -> Command {
    Command::zpool(["scrub", pool.as_str()]).change()
}

/// Commits what was written, so that what is free and used is exact. Anyone may.
pub fn sync(pool: &PoolName) -> Command {
    Command::zpool(["sync", pool.as_str()]).change()
}

/// How a pool is, from the kernel's own file, which answers when every command hangs. None where the
/// pool is not imported here.
pub fn kernel_state(pool: &PoolName) -> io::Result<Option<Health>> {
    match std::fs::read_to_string(format!("/proc/spl/kstat/zfs/{pool}/state")) {
        Ok(text) => Ok(Some(Health::parse(text.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
