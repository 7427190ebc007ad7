//! Replication: keeping a copy of a dataset on another pool, here or on another machine.
//!
//! One run, in this order, each step such that a kill after it is mended by the next run:
//!
//! ```text
//! 1  an interrupted stream is gone on with; one whose snapshot is gone is thrown away
//! 2  a snapshot is made; if nothing was written since the last one that both have, it goes again
//! 3  what changed since the newest snapshot that both have is sent; it need only be a bookmark here
//! 4  the snapshot is noted as ours at its copy, and a bookmark of it is made here, so that the next run
//!    has its base even if the snapshot goes
//! 5  of the snapshots that we made for this copy, on both sides, all but the last few go
//! ```
//!
//! The copy is read-only and belongs to the replication: where somebody else wrote to it, or made a
//! snapshot of it, the run ends and says so, unless it was told to roll the copy back. A copy that is
//! mounted shows what was received at once; files that are open stay so (seen on OpenZFS 2.3.9).

mod lock;
mod plan;
mod run;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::maker::Maker;
use super::name::{DatasetName, NameError, Snapshot, SnapshotName};
use super::ssh::Location;
use super::stream::Base;
use super::{Zfs, ZfsError};

pub use lock::Lock;
pub use run::Watcher;

/// How many snapshots stay on each side, where nobody says.
pub const DEFAULT_KEEP: usize = 3;

/// What is copied where.
#[derive(Clone, Debug)]
pub struct Replication {
    here: Zfs,
    there: Zfs,
    dataset: DatasetName,
    to: Location,
    settings: Settings,
}

/// How it is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many of its snapshots stay on each side; at least one.
    pub keep: usize,
    /// Whether what others did to the copy is undone.
    pub rollback: bool,
    /// Where the copy is mounted; none leaves it to the dataset above it.
    pub mountpoint: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep: DEFAULT_KEEP, rollback: false, mountpoint: None }
    }
}

impl Replication {
    /// Copies `dataset` to another place; `zfs` is that of this machine.
    pub fn new(zfs: Zfs, dataset: DatasetName, to: Location, settings: Settings) -> Self {
        let there = to.host.clone().map_or_else(|| zfs.clone(), |host| zfs.on(host));
        Self { here: zfs, there, dataset, to, settings }
    }

    /// Where the copy is.
    pub const fn to(&self) -> &Location {
        &self.to
    }

    /// Who makes the snapshots of this replication.
    fn maker(&self) -> Maker {
        Maker::Replication(self.to.to_string())
    }
}

/// A stream that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// What the copy has already; nothing where it gets everything.
    pub from: Option<Base>,
    /// What it has afterwards; not known of a stream that was begun before.
    pub to: Option<Snapshot>,
    /// How many bytes, about.
    pub estimate: Option<u64>,
    /// Whether a stream goes on that was interrupted.
    pub resumed: bool,
}

/// A stream that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it was.
    pub sending: Sending,
    /// How many bytes were sent.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// What one run did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The streams; none where nothing had changed.
    pub sent: Vec<Sent>,
    /// The newest snapshot that both have.
    pub at: Option<SnapshotName>,
    /// Snapshots that went, on both sides.
    pub destroyed: usize,
    /// What is not as it should be with the copy, and what to do about it.
    pub remarks: Vec<String>,
}

/// Why the copy is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// ZFS refused, or the stream broke.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// A name that would be too long.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is nothing to copy.
    #[error("there is no dataset {0} here: `snowbank zfs init` makes those of the configuration")]
    NoSource(DatasetName),
    /// A copy of itself, or in itself.
    #[error("{to} is {dataset} itself or lies in it: name a place of its own")]
    Itself {
        /// What was to be copied.
        dataset: DatasetName,
        /// Where to.
        to: Location,
    },
    /// There is nothing that the copy could be made in.
    #[error("there is no dataset {above} for {to} to be in: make it (`zfs create {above}`) {}", on(.to))]
    NoPlace {
        /// What is missing.
        above: DatasetName,
        /// Where the copy was to be.
        to: Location,
    },
    /// What is there was not received from here.
    #[error(
        "{to} is there, and has no snapshot in common with {dataset}: it is no copy of it, or one from \
         too long ago. Name another place, or destroy it (`zfs destroy -r {}`) {}", .to.dataset, on(.to)
    )]
    NoCopy {
        /// What was to be copied.
        dataset: DatasetName,
        /// What is in its place.
        to: Location,
    },
    /// Somebody else changed the copy.
    #[error(
        "{to} is not as it was received: {what}. Keep what was done there by another name, or say \
         --rollback to have it undone"
    )]
    Diverged {
        /// The copy.
        to: Location,
        /// What was done to it.
        what: String,
    },
    /// Another run copies to the same place now.
    #[error("another run copies to {to} now; it has {}", lock.display())]
    Busy {
        /// Where to.
        to: Location,
        /// What it has locked.
        lock: PathBuf,
    },
    /// Others send to the same place, from another machine.
    #[error("{0} gets a stream from elsewhere again and again: which machine is it the copy of?")]
    Contested(Location),
    /// The lock could not be taken.
    #[error("{}: {source}", file.display())]
    Lock {
        /// Its file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ReplicateError {
    /// Whether it was asked to stop, and did; the next run goes on.
    pub const fn is_stopped(&self) -> bool {
        matches!(self, Self::Zfs(ZfsError::Cancelled { .. }))
    }

    /// Whether trying again may help, without anybody doing something.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Zfs(_) | Self::Busy { .. })
    }
}

/// On which machine something is to be done.
fn on(to: &Location) -> String {
    to.host.as_ref().map_or_else(|| "here".into(), |host| format!("on {host}"))
}

impl fmt::Display for Sending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Some(to) => to.fmt(formatter)?,
            None => formatter.write_str("an interrupted stream")?,
        }
        match &self.from {
            Some(Base::Snapshot(from)) => write!(formatter, " since @{}", from.name()),
            Some(Base::Bookmark(from)) => write!(formatter, " since #{}", from.name()),
            None if self.resumed => formatter.write_str(", from where it was interrupted"),
            None => formatter.write_str(", all of it"),
        }
    }
}
