//! `snowbank format`

mod move_nix;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::CommandError;
use crate::format::apply::{self, FormatError, Listener};
use crate::format::layout::{self, Disk, Layout, Name};
use crate::format::lock::Lock;
use crate::format::plan::{Permission, Plan};
use crate::format::step::{Action, Step};
use crate::zfs::name::PoolName;
use crate::zfs::{Command, Zfs};

/// How long another run, or what one that was killed has left running, is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// Makes partitions, the pool, its datasets and ext4 volumes as a file says; for the first boot, and every other.
///
/// What is there already is left as it is: a pool is imported, never made anew, and a disk with anything on it that
/// the file does not name is refused. It may be run again at any time, and after having been killed at any point.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  snowbank format --print-example dedicated > layout.toml
  snowbank format --layout layout.toml --dry-run
  snowbank format --layout layout.toml
  snowbank format --layout layout.toml --wipe cache
  snowbank format move-nix --layout layout.toml --dry-run

Ends with 0 if everything is as the file says, with 2 if the file is wrong or something was refused, and with 1 if
anything else went wrong, such as a disk that did not appear."
)]
pub(super) struct FormatArguments {
    /// What the disks should look like
    #[arg(long, value_name = "FILE", required_unless_present = "print_example")]
    layout: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<FormatCommand>,
    /// Print the commands that would be run, and run none that changes anything
    #[arg(long)]
    dry_run: bool,
    /// Allow everything on this disk to be destroyed, by its name in the file; repeatable
    ///
    /// Only what is in the way is destroyed: a disk that is as the file says stays as it is. A disk in use, and the
    /// pool that the file names, are not destroyed even so.
    #[arg(long, value_name = "NAME")]
    wipe: Vec<String>,
    /// Take this pool over from the machine that used it last and did not export it
    #[arg(long, value_name = "POOL")]
    import_foreign: Option<String>,
    /// Print what is done as JSON
    #[arg(long)]
    json: bool,
    /// Print a commented file to start from
    #[arg(long, value_name = "WHICH", conflicts_with = "layout")]
    print_example: Option<Example>,
}

#[derive(Debug, Subcommand)]
enum FormatCommand {
    MoveNix(move_nix::MoveNixArguments),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Example {
    /// A second disk that is the pool, and a third one with an ext4 file system
    Dedicated,
    /// One disk with the boot partition, the root file system and the pool
    SingleDisk,
}

pub(super) fn run(arguments: &FormatArguments) -> Result<(), CommandError> {
    if let Some(FormatCommand::MoveNix(arguments)) = &arguments.command {
        return move_nix::run(arguments);
    }
    if let Some(example) = arguments.print_example {
        return print(match example {
            Example::Dedicated => layout::EXAMPLE_DEDICATED,
            Example::SingleDisk => layout::EXAMPLE_SINGLE_DISK,
        });
    }
    let file = arguments.layout.as_deref().unwrap_or(Path::new(""));
    let layout = Layout::load(file)?;
    let permission = permission(arguments, &layout)?;
    needs_root()?;
    let zfs = match &layout.pool {
        Some(_) => Zfs::find().map_err(CommandError::Zfs)?,
        None => Zfs::not_asked(),
    };
    let _lock = Lock::take(LOCK_PATIENCE).map_err(CommandError::FormatLock)?;
    let mut told = Told { quiet: arguments.json, done: Vec::new() };
    if arguments.dry_run {
        let (_, plan) = apply::look(&zfs, &layout, &permission, &mut told).map_err(failed)?;
        return print(&if arguments.json { as_json(&plan) } else { as_script(&plan) });
    }
    let notes = apply::apply(&zfs, &layout, &permission, &mut told).map_err(failed)?;
    if arguments.json {
        return print(&as_json(&Plan { steps: told.done, notes }));
    }
    let summary = match told.done.len() {
        0 => format!("everything is as {} says already\n", file.display()),
        1 => format!("1 step, and everything is as {} says\n", file.display()),
        steps => format!("{steps} steps, and everything is as {} says\n", file.display()),
    };
    let notes = notes.iter().map(|note| format!("note: {note}\n"));
    print(&notes.chain([summary]).collect::<String>())
}

fn needs_root() -> Result<(), CommandError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(CommandError::Usage("format reads and writes disks, which takes root".into()))
}

fn failed(error: FormatError) -> CommandError {
    CommandError::Format(Box::new(error))
}

/// What was allowed; a disk or a pool that the file does not have is a slip.
fn permission(arguments: &FormatArguments, layout: &Layout) -> Result<Permission, CommandError> {
    let mut wipe = BTreeSet::new();
    for text in &arguments.wipe {
        let name =
            Name::parse(text).filter(|name| layout.disks.iter().any(|disk| disk.name == *name));
        wipe.insert(name.ok_or_else(|| {
            let known: Vec<_> = layout.disks.iter().map(|disk| disk.name.as_str()).collect();
            let known = known.join(", ");
            CommandError::Usage(format!("--wipe {text}: the layout has no such disk, only {known}"))
        })?);
    }
    let import_foreign = match &arguments.import_foreign {
        None => None,
        Some(text) => {
            let pool = layout.pool.as_ref().map(|pool| pool.name.clone());
            let named = PoolName::parse(text).ok().filter(|name| Some(name) == pool.as_ref());
            Some(named.ok_or_else(|| {
                CommandError::Usage(format!("--import-foreign {text}: the layout has no such pool"))
            })?)
        }
    };
    Ok(Permission { wipe, import_foreign })
}

/// Tells a person, or the journal, what is done while it is done.
struct Told {
    quiet: bool,
    done: Vec<Step>,
}

impl Listener for Told {
    fn late(&mut self, disk: &Disk) {
        eprintln!("disk {}: not there yet, waiting for it up to {:?}", disk.name, disk.wait);
    }

    fn begin(&mut self, step: &Step) {
        if !self.quiet {
            // Nobody may be reading.
            let _closed = writeln!(io::stdout(), "{}: {}", step.subject, step.what);
        }
    }

    fn done(&mut self, step: &Step) {
        self.done.push(step.clone());
    }
}

/// The plan as a shell script.
fn as_script(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        text += &format!("# {}: {}\n", step.subject, step.what);
        if step.provisional {
            text += "# (decided after what is above was done)\n";
        }
        for action in &step.actions {
            text += &match action {
                Action::Run(command) => command.script() + "\n",
                Action::WaitFor(path) => {
                    format!("until [ -e {0} ]; do sleep 0.1; done\n", path.display())
                }
            };
        }
    }
    text.extend(plan.notes.iter().map(|note| format!("# note: {note}\n")));
    if text.is_empty() { "# nothing to do\n".into() } else { text }
}

fn as_json(plan: &Plan) -> String {
    let step = |step: &Step| -> Value {
        let commands: Vec<_> = step.commands().map(Command::script).collect();
        json!({
            "kind": step.kind,
            "subject": step.subject,
            "what": step.what,
            "commands": commands,
            "provisional": step.provisional,
        })
    };
    let steps: Vec<_> = plan.steps.iter().map(step).collect();
    json!({ "steps": steps, "notes": plan.notes }).to_string() + "\n"
}

fn print(text: &str) -> Result<(), CommandError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}
