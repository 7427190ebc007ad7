//! `snowbank pin`

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::{print, table};
use super::place::OfCache;
use super::{CommandError, release, time, user, zfs};
use crate::index::state::{
    Keep, MAX_PIN_NAME, NewRevision, PinRecord, PinRevision, Pinned, StateDb, is_pin_name,
};

/// Keeps paths of a cache by name, with all that they refer to, whatever is collected.
///
/// To pin a name again makes a new revision of it. How many of them stay is said when it is pinned: all, the newest
/// so many, or each for so many days. A server that runs need not be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank pin add main ./result --keep-revisions 3
  snowbank pin add nightly /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello-2.10 --keep-days 14
  snowbank pin ls
  snowbank pin history main
  snowbank pin rm main --cache team")]
pub(super) struct PinArguments {
    #[command(subcommand)]
    command: PinCommand,
}

#[derive(Debug, Subcommand)]
enum PinCommand {
    Add(AddArguments),
    /// Lists the pins
    #[command(after_help = "Example:\n  snowbank pin ls --cache team --json")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        of: OfCache,
    },
    /// Lists what a pin names and named, the newest first
    #[command(after_help = "Example:\n  snowbank pin history main")]
    History {
        /// What it is called
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        of: OfCache,
    },
    /// Removes a pin with all its revisions; what it kept goes with the next collection that wants it
    #[command(after_help = "Example:\n  snowbank pin rm main")]
    Rm {
        /// What it is called
        name: String,
        #[command(flatten)]
        of: OfCache,
    },
}

/// Pins paths that the cache has
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("keep").multiple(false))]
#[command(after_help = "\
Examples:
  snowbank pin add main ./result --keep-revisions 3
  snowbank pin add release-1.0 /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello-2.10 --forever")]
struct AddArguments {
    /// What it is called: letters, digits and - _ . + : @ /
    name: String,

    /// Store paths, links to such, or hashes
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,

    /// Keep the newest so many revisions
    #[arg(long, value_name = "N", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_revisions: Option<u32>,

    /// Keep each revision for so many days, the last one as well
    #[arg(long, value_name = "D", group = "keep", value_parser = clap::value_parser!(u32).range(1..=36_525))]
    keep_days: Option<u32>,

    /// Keep all revisions; a new pin does, if nothing else is said
    #[arg(long, group = "keep")]
    forever: bool,

    #[command(flatten)]
    of: OfCache,
}

pub(super) fn run(arguments: &PinArguments) -> Result<(), CommandError> {
    match &arguments.command {
        PinCommand::Add(arguments) => add(arguments),
        PinCommand::Ls { json, of } => list(*json, of),
        PinCommand::History { name, json, of } => history(name, *json, of),
        PinCommand::Rm { name, of } => remove(name, of),
    }
}

fn open(of: &OfCache) -> Result<StateDb, CommandError> {
    let config = of.place.load()?;
    zfs::cache(&config, &of.cache)?;
    Ok(StateDb::open(&config.data_dir)?)
}

fn add(arguments: &AddArguments) -> Result<(), CommandError> {
    let AddArguments { name, of, .. } = arguments;
    if !is_pin_name(name) {
        let why = format!(
            "{name:?}: a name of 1 to {MAX_PIN_NAME} letters, digits and - _ . + : @ / is expected"
        );
        return Err(CommandError::Usage(why));
    }
    let config = of.place.load()?;
    let cache = zfs::cache(&config, &of.cache)?;
    let paths = release::named(cache, &arguments.paths)?;
    let keep = match (arguments.keep_revisions, arguments.keep_days, arguments.forever) {
        (Some(count), _, _) => Some(Keep::Revisions(count)),
        (None, Some(days), _) => Some(Keep::Days(days)),
        (None, None, true) => Some(Keep::Forever),
        (None, None, false) => None,
    };
    let pinner = user();
    let revision = NewRevision { cache: &of.cache, name, paths: &paths, pinner: &pinner };
    let now = Timestamp::now().as_second();
    match StateDb::open(&config.data_dir)?.pin(revision, keep, now)? {
        Pinned::Revision(number) => {
            // One that was collected between the look at it and the pin is kept from now on, and not here.
            release::named(cache, &arguments.paths)?;
            print(&format!("{name}, revision {number}: {} paths pinned\n", paths.len()));
            Ok(())
        }
        Pinned::OfRelease => Err(of_release(name)),
    }
}

fn of_release(name: &str) -> CommandError {
    CommandError::Usage(format!(
        "{name} is the pin of a release; `snowbank release` makes and removes it"
    ))
}

fn list(as_json: bool, of: &OfCache) -> Result<(), CommandError> {
    let pins = open(of)?.pins(&of.cache)?;
    if as_json {
        let all: Vec<Value> = pins.iter().map(describe).collect();
        print(&(Value::Array(all).to_string() + "\n"));
        return Ok(());
    }
    let mut rows = vec![["NAME", "PATHS", "REVISIONS", "KEEPS", "SINCE"].map(String::from)];
    rows.extend(pins.iter().map(|pin| {
        let (paths, revisions) = (pin.paths.to_string(), pin.revisions.to_string());
        [pin.name.clone(), paths, revisions, shown(pin), time::show(pin.created)]
    }));
    print(&table(&rows));
    Ok(())
}

fn shown(pin: &PinRecord) -> String {
    match (&pin.release, pin.keep) {
        (Some(release), _) => format!("release {release}"),
        (None, Keep::Forever) => "forever".into(),
        (None, Keep::Revisions(count)) => format!("{count} revisions"),
        (None, Keep::Days(days)) => format!("{days} days"),
    }
}

fn describe(pin: &PinRecord) -> Value {
    let (revisions, days) = pin.keep.revisions_and_days();
    json!({
        "name": pin.name,
        "release": pin.release,
        "created": time::show(pin.created),
        "keep_revisions": revisions,
        "keep_days": days,
        "revisions": pin.revisions,
        "paths": pin.paths,
    })
}

fn history(name: &str, as_json: bool, of: &OfCache) -> Result<(), CommandError> {
    let revisions = open(of)?.pin_revisions(&of.cache, name)?;
    if revisions.is_empty() {
        return Err(not_there(name, &of.cache));
    }
    if as_json {
        let all: Vec<Value> = revisions.iter().map(describe_revision).collect();
        print(&(Value::Array(all).to_string() + "\n"));
        return Ok(());
    }
    let mut rows = vec![["REVISION", "PINNED", "BY", "PATH"].map(String::from)];
    for revision in &revisions {
        for path in &revision.paths {
            let (number, at) = (revision.number.to_string(), time::show(revision.created));
            rows.push([number, at, revision.pinner.clone(), path.to_string()]);
        }
    }
    print(&table(&rows));
    Ok(())
}

fn describe_revision(revision: &PinRevision) -> Value {
    let paths: Vec<String> = revision.paths.iter().map(ToString::to_string).collect();
    json!({
        "number": revision.number,
        "created": time::show(revision.created),
        "by": revision.pinner,
        "paths": paths,
    })
}

fn remove(name: &str, of: &OfCache) -> Result<(), CommandError> {
    let db = open(of)?;
    if db.release_of_pin(&of.cache, name)?.is_some() {
        return Err(of_release(name));
    }
    if !db.remove_pin(&of.cache, name)? {
        return Err(not_there(name, &of.cache));
    }
    print(&format!("removed {name}\n"));
    Ok(())
}

fn not_there(name: &str, cache: &str) -> CommandError {
    CommandError::Queue(format!(
        "the cache {cache} has no pin {name}; `snowbank pin ls` lists them"
    ))
}
