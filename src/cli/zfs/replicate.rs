//! `snowbank zfs replicate`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cache, dataset_of};
use crate::app::replicate::{self, Parts, Reporter};
use crate::cli::client::duration;
use crate::cli::output::print;
use crate::cli::place::PlaceArguments;
use crate::cli::progress::{Progress, per_second, say};
use crate::cli::{CommandError, logging};
use crate::index::state::STATE_DIRECTORY;
use crate::zfs::Zfs;
use crate::zfs::replicate::{
    DEFAULT_KEEP, Outcome, ReplicateError, Replication, Sending, Sent, Settings,
};
use crate::zfs::ssh::Location;
use crate::zfs::stream::Base;

/// The shortest time between two runs.
const MIN_EVERY: Duration = Duration::from_secs(1);

/// Keeps a copy of a cache on another pool or machine: sends what changed, compressed as it lies on disk.
///
/// An interrupted stream is gone on with by the next run. Only snapshots that it made itself are ever
/// destroyed, and a copy that somebody else changed is left alone unless --rollback is said. The copy is
/// read-only; mounted, it shows what arrived at once, and another server serves it as a part of a cache.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs replicate default --to backup/caches/node-a
  snowbank zfs replicate default --to snowbank@node-b:tank/snowbank/from-a --every 5m
  snowbank zfs replicate default --to node-b:tank/snowbank/from-a --dry-run

Between machines it runs zfs through ssh, by the keys of the user that runs it. Once, on the other side, as
root: `snowbank zfs init` there delegates what is needed to receive below its parent, and the first copy has
to be mounted (`zfs mount`), which only root may; this command says so. With --every it runs until SIGTERM,
which ends it in the midst of a stream as well.")]
pub(super) struct ReplicateArguments {
    /// The cache
    #[arg(value_name = "CACHE")]
    cache: String,

    /// Where the copy is; what it lies in has to be there
    #[arg(long, value_name = "[USER@HOST:]POOL/DATASET")]
    to: Location,

    /// Run again and again, this long from one beginning to the next [example: --every 5m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    every: Option<Duration>,

    /// How many of its snapshots stay on each side
    #[arg(long, value_name = "N", default_value_t = DEFAULT_KEEP)]
    keep: usize,

    /// Where a copy that is made anew is mounted [default: as the dataset above it says]
    #[arg(long, value_name = "DIR")]
    mountpoint: Option<PathBuf>,

    /// Undo what somebody else did to the copy
    #[arg(long)]
    rollback: bool,

    /// Print the commands that would be run, and run none
    #[arg(long, conflicts_with = "every")]
    dry_run: bool,

    /// Print JSON, one object a run
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &ReplicateArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let dataset = dataset_of(&config, cache(&config, &arguments.cache)?)?;
    let settings = settings(arguments)?;
    let replication = Replication::new(Zfs::find()?, dataset, arguments.to.clone(), settings);
    if arguments.dry_run {
        let lines = replication.dry_run(Timestamp::now())?;
        print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        return Ok(());
    }
    if arguments.every.is_some() {
        logging::start(&logging::of_service());
    }
    let name = arguments.cache.clone();
    let parts = Parts {
        replication,
        lock_directory: config.data_dir.join(STATE_DIRECTORY),
        every: arguments.every,
        reporter: Box::new(Shown {
            name,
            json: arguments.json,
            bar: None,
            last_remarks: Vec::new(),
        }),
    };
    Ok(replicate::run(parts)??)
}

fn settings(arguments: &ReplicateArguments) -> Result<Settings, CommandError> {
    let usage = |why: &str| Err(CommandError::Usage(why.into()));
    if arguments.keep == 0 {
        return usage("--keep 0: the last one that both have is needed; 1 is the least");
    }
    if arguments.every.is_some_and(|every| every < MIN_EVERY) {
        return usage("--every: a second is the least");
    }
    let mountpoint = arguments.mountpoint.clone();
    if mountpoint.as_ref().is_some_and(|path| !path.is_absolute() || path.to_str().is_none()) {
        return usage("--mountpoint: an absolute path is expected");
    }
    Ok(Settings { keep: arguments.keep, rollback: arguments.rollback, mountpoint })
}

/// Shows how it goes: a bar or lines on standard error, what was done on standard output.
struct Shown {
    name: String,
    json: bool,
    bar: Option<Progress>,
    /// What was remarked after the run before: it is not said again and again.
    last_remarks: Vec<String>,
}

impl Reporter for Shown {
    fn begin(&mut self, sending: &Sending) {
        if !self.json {
            let size = sending.estimate.map(|bytes| format!(", about {}", BinaryBytes(bytes)));
            say(&format!("sending {sending}{}", size.unwrap_or_default()));
        }
        self.bar = Some(Progress::of(self.name.clone(), sending.estimate));
    }

    fn moved(&mut self, bytes: u64) {
        if let Some(bar) = &mut self.bar {
            bar.at(bytes);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.end();
        }
    }

    fn ran(&mut self, outcome: &Outcome) {
        print(&if self.json { describe(outcome).to_string() + "\n" } else { lines(outcome) });
        for remark in outcome.remarks.iter().filter(|remark| !self.last_remarks.contains(remark)) {
            say(&format!("snowbank: {remark}"));
        }
        self.last_remarks.clone_from(&outcome.remarks);
    }

    fn failed(&mut self, error: &ReplicateError, wait: Duration) {
        say(&format!("snowbank: {error}; again in {:.1} s", wait.as_secs_f32()));
    }
}

fn lines(outcome: &Outcome) -> String {
    let mut text = String::new();
    for Sent { sending, bytes, took } in &outcome.sent {
        let rate = BinaryBytes(per_second(*bytes, *took));
        let (bytes, took) = (BinaryBytes(*bytes), took.as_secs_f32());
        text += &format!("sent {sending}: {bytes} in {took:.1} s ({rate}/s)\n");
    }
    if outcome.sent.is_empty() {
        let at = outcome.at.as_ref().map(|at| format!(" since @{at}")).unwrap_or_default();
        text += &format!("nothing new{at}\n");
    }
    if outcome.destroyed > 0 {
        text += &format!("let go of {} old snapshots\n", outcome.destroyed);
    }
    text
}

fn describe(outcome: &Outcome) -> Value {
    let sent = outcome.sent.iter().map(|Sent { sending, bytes, took }| {
        let from = sending.from.as_ref().map(|base| match base {
            Base::Snapshot(snapshot) => snapshot.to_string(),
            Base::Bookmark(bookmark) => bookmark.to_string(),
        });
        json!({
            "from": from,
            "to": sending.to.as_ref().map(ToString::to_string),
            "estimated_bytes": sending.estimate,
            "resumed": sending.resumed,
            "bytes": bytes,
            "seconds": took.as_secs_f64(),
            "bytes_per_second": per_second(*bytes, *took),
        })
    });
    json!({
        "sent": sent.collect::<Vec<_>>(),
        "at": outcome.at.as_ref().map(ToString::to_string),
        "destroyed": outcome.destroyed,
        "remarks": outcome.remarks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let sending = Sending {
            from: Some(Base::Snapshot("tank/a@x".parse().unwrap())),
            to: Some("tank/a@y".parse().unwrap()),
            estimate: Some(1000),
            resumed: false,
        };
        let sent = Sent { sending, bytes: 4 << 20, took: Duration::from_secs(2) };
        let at = Some("y".parse().unwrap());
        Outcome { sent: vec![sent], at, destroyed: 2, remarks: Vec::new() }
    }

    #[test]
    fn what_was_done_is_told_to_people_and_to_scripts() {
        assert_eq!(
            lines(&outcome()),
            "sent tank/a@y since @x: 4.00 MiB in 2.0 s (2.00 MiB/s)\nlet go of 2 old snapshots\n"
        );
        let nothing = Outcome { sent: Vec::new(), destroyed: 0, ..outcome() };
        assert_eq!(lines(&nothing), "nothing new since @y\n");
        let told = describe(&outcome());
        assert_eq!((&told["at"], &told["sent"][0]["bytes"]), (&json!("y"), &json!(4 << 20)));
        assert_eq!(told["sent"][0]["from"], "tank/a@x");
    }
}
