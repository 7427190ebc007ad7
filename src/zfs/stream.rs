//! Streams: sending a snapshot into another dataset, here or on another machine, and going on after
//! an interruption.
//!
//! Both programs run beside each other and the bytes go through a bounded buffer here, where they
//! are counted: there is no shell pipeline, which would hide how its left side ended. A transfer has
//! no deadline in all, but one in which nothing moves for [`STALL_DEADLINE`] is killed.

use std::ops::ControlFlow;
use std::time::Duration;

use super::command::Command;
use super::dataset::ResumeToken;
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::{Bookmark, DatasetName, Snapshot};
use super::text::number;

mod pump;
#[cfg(test)]
mod tests;

/// How long a transfer may stand still. A receiver that frees what was destroyed on the other side,
/// or a pool that is being scrubbed, may take a minute or two without taking a byte.
pub const STALL_DEADLINE: Duration = Duration::from_secs(300);
/// How long counting the bytes of a stream may take: it walks what changed.
const ESTIMATE_DEADLINE: Duration = Duration::from_secs(60);

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    /// All of a snapshot, or what changed since a base that the receiver has too.
    Snapshot {
        /// What the receiver has; none sends everything.
        from: Option<Base>,
        /// What the receiver gets.
        to: Snapshot,
        /// Send the properties of the dataset and its snapshots along. Without, the receiver's
        /// come from the dataset above it and from [`Receive::set`].
        properties: bool,
        /// Send encrypted blocks as they lie on disk, so that the receiver needs no key and cannot
        /// read them. Of no use for a dataset that is not encrypted.
        raw: bool,
    },
    /// What an interrupted receiver lacks.
    Resume(ResumeToken),
}

/// What a stream begins from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A snapshot.
    Snapshot(Snapshot),
    /// What is left of one.
    Bookmark(Bookmark),
}

/// Into what it is received. The received dataset is not mounted; an interrupted stream is kept so
/// that it can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// The dataset: made by a whole stream, brought forward by the change since a base.
    pub target: DatasetName,
    /// Properties that are set on it, instead of those that the stream brings.
    pub set: Vec<(String, String)>,
    /// Properties that the stream brings and that are not to be taken.
    pub exclude: Vec<String>,
    /// Roll the target back to the base first: what was changed in it is lost.
    pub rollback: bool,
}

/// What a stream will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// How many bytes, about: metadata and what became smaller in between are not counted exactly.
    pub bytes: u64,
    /// The snapshot at its end, by the name that it has on the sender.
    pub to: Option<Snapshot>,
}

impl Base {
    fn argument(&self) -> String {
        match self {
            Self::Snapshot(snapshot) => snapshot.to_string(),
            Self::Bookmark(bookmark) => bookmark.to_string(),
        }
    }
}

impl Send {
    /// All of a snapshot, or what changed since `from`, as it is compressed on disk, and without
    /// properties.
    pub const fn new(from: Option<Base>, to: Snapshot) -> Self {
        Self::Snapshot { from, to, properties: false, raw: false }
    }

    /// The command that writes the stream to its standard output.
    pub fn command(&self) -> Command {
        self.with(&["send"]).within(STALL_DEADLINE)
    }

    /// `zfs` with `words` and what describes the stream. Blocks go as they are compressed (`-c`), as
    /// large as they are (`-L`: without it a record of 1 MiB is split, and read slower forever), and
    /// tiny ones within their pointers (`-e`).
    fn with(&self, words: &[&str]) -> Command {
        let command = Command::zfs(words.iter().copied());
        match self {
            Self::Resume(token) => command.args(["-t", token.as_str()]),
            Self::Snapshot { from, to, properties, raw } => {
                let more: &[&str] = match (properties, raw) {
                    (false, false) => &[],
                    (true, false) => &["-p"],
                    (false, true) => &["-w"],
                    (true, true) => &["-p", "-w"],
                };
                let command = command.arg("-cLe").args(more.iter().copied());
                let base = from.iter().flat_map(|base| ["-i".into(), base.argument()]);
                command.args(base).arg(to.to_string())
            }
        }
    }
}

impl Receive {
    /// Receives into `target` and takes all properties as they come.
    pub const fn into(target: DatasetName) -> Self {
        Self { target, set: Vec::new(), exclude: Vec::new(), rollback: false }
    }

    /// The command that reads the stream from its standard input.
    pub fn command(&self) -> Command {
        let rollback: &[&str] = if self.rollback { &["-F"] } else { &[] };
        let set: Vec<(&str, &str)> =
            self.set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let exclude = self.exclude.iter().flat_map(|name| ["-x", name.as_str()]);
        Command::zfs(["receive", "-s", "-u"])
            .args(rollback.iter().copied())
            .options(&set)
            .args(exclude)
            .arg(self.target.as_str())
            .within(STALL_DEADLINE)
    }
}

/// Throws away what an interrupted stream has left; there is no going on then.
pub fn abort(target: &DatasetName) -> Command {
    Command::zfs(["receive", "-A", target.as_str()]).change()
}

impl Zfs {
    /// How large a stream will be. Fails as the stream would: when a snapshot of it is gone.
    pub fn estimate(&self, send: &Send) -> Result<Estimate, ZfsError> {
        let command = send.with(&["send", "-nvP"]).within(ESTIMATE_DEADLINE);
        self.parse(&command, parse_estimate)
    }

    /// With what an interrupted stream into `target` goes on; none where there is none, or no such
    /// dataset.
    pub fn resume_token(&self, target: &DatasetName) -> Result<Option<ResumeToken>, ZfsError> {
        Ok(self.find_dataset(target)?.and_then(|dataset| dataset.receive_resume_token))
    }

    /// Sends from the machine of this handle to that of another. `progress` gets the bytes that the
    /// receiver has taken, several times a second and at the end, and may stop the transfer by
    /// [`ControlFlow::Break`]. Both programs have ended when this returns. The result is the number
    /// of bytes.
    pub fn transfer(
        &self,
        send: &Send,
        receiver: &Self,
        receive: &Receive,
        progress: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, ZfsError> {
        pump::transfer((self, &send.command()), (receiver, &receive.command()), progress)
    }
}

/// Reads `zfs send -nvP`: `full`, or `incremental`, with names, and at the end `size` and a number.
/// Of a resumed stream the lines before say what the token holds.
fn parse_estimate(text: &str) -> Result<Estimate, String> {
    let mut bytes = None;
    let mut to = None;
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        match columns[..] {
            ["size", size] => bytes = Some(number(size)?),
            ["full", name, _] | ["incremental", _, name, _] => to = Snapshot::parse(name).ok(),
            _ => {}
        }
    }
    Ok(Estimate { bytes: bytes.ok_or("there is no size in it")?, to })
}
