//! `snowbank gc`

use clap::Args;
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use super::output::{print, table};
use super::place::PlaceArguments;
use super::{CommandError, collecting};
use crate::app::collecting::{Said, What};
use crate::index::state::StateDb;

/// Removes what a cache need not keep any more: what its configuration says is too old, or too much, by closures, so
/// that what stays is whole.
///
/// A server that runs on the data directory does it, while it serves and takes pushes; else it is done here. What is
/// pinned, and what came or was asked for a moment ago, stays. It may be interrupted, and begun anew, at any time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank gc --dry-run
  snowbank gc --cache team

The settings are collect_every, keep_unused, keep_at_least, collect_above, collect_to and keep_free of
[cache.NAME].")]
pub(super) struct GcArguments {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    /// Only this cache [default: all]
    #[arg(long, value_name = "NAME")]
    cache: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &GcArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let caches = collecting::caches(&config, arguments.cache.as_deref())?;
    let db = StateDb::open(&config.data_dir)?;
    let mut said = Vec::new();
    for cache in caches {
        let outcome = match arguments.dry_run {
            true => collecting::plan(&config, cache, &db, &What::Collect)?,
            false => collecting::carry_out(&config, cache, &db, &What::Collect)?,
        };
        said.push((cache.name.as_str(), outcome));
    }
    print(&if arguments.json { describe(&said) } else { show(&said, arguments.dry_run) });
    match said.iter().filter(|(_, said)| said.error.is_some() || said.failed > 0).count() {
        0 => Ok(()),
        problems => Err(CommandError::Problems(problems)),
    }
}

fn describe(said: &[(&str, Said)]) -> String {
    let of_cache = |(cache, said): &(&str, Said)| {
        let mut value = serde_json::to_value(said).unwrap_or_default();
        value["cache"] = json!(cache);
        value
    };
    Value::Array(said.iter().map(of_cache).collect()).to_string() + "\n"
}

fn show(said: &[(&str, Said)], is_dry: bool) -> String {
    let going = if is_dry { "WOULD GO" } else { "GONE" };
    let mut rows = vec![["CACHE", "PATHS", going, "BYTES", "STRAY FILES", ""].map(String::from)];
    rows.extend(said.iter().map(|(cache, said)| {
        let gone = if is_dry { said.planned } else { said.removed };
        [
            (*cache).to_owned(),
            said.total.to_string(),
            gone.to_string(),
            BinaryBytes(said.bytes).to_string(),
            said.strays.to_string(),
            notes(said),
        ]
    }));
    let kept = said.iter().map(|(cache, said)| collecting::show_snapshots(cache, said));
    table(&rows) + &kept.collect::<String>()
}

fn notes(said: &Said) -> String {
    let counts = [
        (said.wanted_again, "wanted again meanwhile"),
        (said.failed, "not removed: the log says why"),
        (said.unreadable, "unreadable and left alone"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let notes = counts.map(|(count, what)| format!("{count} {what}"));
    notes.chain(said.error.clone()).collect::<Vec<_>>().join("; ")
}
