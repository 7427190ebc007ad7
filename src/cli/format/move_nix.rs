//! `snowbank format move-nix`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::{LOCK_PATIENCE, needs_root, print};
use crate::cli::CommandError;
use crate::format::layout::Layout;
use crate::format::lock::Lock;
use crate::format::move_nix::copy::Progress;
use crate::format::move_nix::{self, Checked, Moved, NIX, OLD, Watcher};
use crate::zfs::Zfs;

/// How often it says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Moves /nix onto a dataset of the pool while the system runs from it.
///
/// Everything is copied and verified beside /nix before the dataset is mounted over it; until then nothing is
/// different, and what runs goes on. The Nix daemon is stopped for the last part, and who asks it meanwhile is told
/// that there is none: better not while something is built. It may be killed and run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank format move-nix --layout layout.toml --dry-run
  snowbank format move-nix --layout layout.toml

Afterwards the system's configuration has to mount it, or the next boot has the old /nix again; what to write is
printed. The old tree stays where it was, below the new one, until it is removed by hand.")]
pub(super) struct MoveNixArguments {
    /// The layout that names the pool
    #[arg(long, value_name = "FILE")]
    layout: PathBuf,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &MoveNixArguments) -> Result<(), CommandError> {
    let layout = Layout::load(&arguments.layout)?;
    needs_root()?;
    let zfs = Zfs::find().map_err(CommandError::Zfs)?;
    let _lock = Lock::take(LOCK_PATIENCE).map_err(CommandError::FormatLock)?;
    let failed = |error| CommandError::MoveNix(Box::new(error));
    let checked = move_nix::check(&zfs, &layout);
    if !arguments.dry_run {
        move_nix::recover(&zfs, &checked).map_err(failed)?;
    }
    let (dataset, moved) = match checked.map_err(failed)? {
        Checked::IsThere(dataset) => (dataset, Moved::Before),
        Checked::Move(work) => {
            if arguments.dry_run {
                let lines = work.script().into_iter().map(|line| match line {
                    Ok(command) => format!("{command}\n"),
                    Err(what) => format!("# {what}\n"),
                });
                return print(&lines.collect::<String>());
            }
            let moved = work.run(&mut Told::default()).map_err(failed)?;
            (work.dataset().clone(), moved)
        }
    };
    let advice = format!(
        "To keep it so at the next boot, put this into the system's configuration and rebuild, before\n\
         anything else is built:\n\n  \
         fileSystems.\"/nix\" = {{ device = \"{dataset}\"; fsType = \"zfs\"; neededForBoot = true; }};\n\n\
         On other systems, this into /etc/fstab:\n\n  {dataset} {NIX} zfs defaults 0 0\n\n"
    );
    print(&match moved {
        Moved::Before => format!("{NIX} is on {dataset} already.\n{advice}"),
        Moved::Now { damaged } => {
            let damaged = damaged.iter().map(|path| {
                format!("note: {path} is not what Nix's database says; it was not before either\n")
            });
            let back = format!(
                "To go back: `systemctl stop nix-daemon.socket nix-daemon.service && umount -l {NIX} && \
                 systemctl start nix-daemon.socket`.\nThe old tree is at {OLD} until the next boot, and takes \
                 the room that it took.\n"
            );
            damaged.chain([format!("{NIX} is on {dataset}.\n{advice}{back}")]).collect::<String>()
        }
    })
}

/// Tells a person, or the journal, how far it is.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
}

impl Watcher for Told {
    fn part(&mut self, what: &str) {
        self.last = Some(Instant::now());
        eprintln!("{what}");
    }

    fn progress(&mut self, progress: &Progress) {
        if self.last.is_none_or(|last| last.elapsed() < SAY_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        eprintln!("  {} files, {} MiB", progress.files, progress.bytes >> 20);
    }
}
