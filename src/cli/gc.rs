//! `snowbank gc`

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::{print, table};
use super::place::PlaceArguments;
use super::{CommandError, zfs};
use crate::app::collecting::{Offline, Said, What, ask, collect};
use crate::app::serving::{self, Alone};
use crate::config::{CacheConfig, Config};
use crate::index::state::StateDb;

/// How long to wait for a running server to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

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
    let caches: Vec<&CacheConfig> = match &arguments.cache {
        Some(name) => vec![zfs::cache(&config, name)?],
        None => config.caches.iter().filter(|cache| cache.directory.exists()).collect(),
    };
    let db = StateDb::open(&config.data_dir)?;
    let mut said = Vec::new();
    for cache in caches {
        let outcome = match arguments.dry_run {
            true => plan(cache, &db)?,
            false => carry_out(&config, cache, &db)?,
        };
        said.push((cache.name.as_str(), outcome));
    }
    print(&if arguments.json { describe(&said) } else { show(&said, arguments.dry_run) });
    match said.iter().filter(|(_, said)| said.error.is_some() || said.failed > 0).count() {
        0 => Ok(()),
        problems => Err(CommandError::Problems(problems)),
    }
}

/// What would go, without the server, which may run: nothing is changed.
fn plan(cache: &CacheConfig, db: &StateDb) -> Result<Said, CommandError> {
    let offline = Offline::to_look_at(cache)?;
    let now = Timestamp::now().as_second();
    let plan = offline.collector(db).plan(&cache.collect, now)?;
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Ok(Said {
        total: count(plan.total()),
        planned: count(plan.paths().len()),
        bytes: plan.bytes() + plan.strays.bytes,
        strays: count(plan.strays.files.len()),
        unreadable: count(plan.damaged().len()),
        ..Said::default()
    })
}

fn carry_out(config: &Config, cache: &CacheConfig, db: &StateDb) -> Result<Said, CommandError> {
    match serving::alone(&config.data_dir)? {
        Some(alone) => here(config, cache, db, &alone),
        None => by_the_server(cache, db),
    }
}

fn here(
    config: &Config,
    cache: &CacheConfig,
    db: &StateDb,
    alone: &Alone,
) -> Result<Said, CommandError> {
    let offline = Offline::to_collect(config, cache, db)?;
    let now = Timestamp::now().as_second();
    let is_cut = Cell::new(false);
    let goes_on = |_: &Said| {
        is_cut.set(!alone.goes_on());
        !is_cut.get()
    };
    let mut said = collect(&offline.collector(db), &cache.collect, now, &goes_on)?;
    if is_cut.get() {
        said.error = Some("a server has started: ask again, and it goes on".into());
    }
    Ok(said)
}

fn by_the_server(cache: &CacheConfig, db: &StateDb) -> Result<Said, CommandError> {
    let number = ask(db, &cache.name, &What::Collect, Timestamp::now().as_second())?;
    let asked = Instant::now();
    loop {
        let Some(state) = db.job(number)? else {
            return Err(CommandError::Queue(
                "the server was started anew meanwhile; ask again".into(),
            ));
        };
        if state.has_ended {
            let said = state.said.and_then(|said| serde_json::from_str(&said).ok());
            return said.ok_or_else(|| {
                CommandError::Queue(
                    "what the server said of it cannot be read: is it another version?".into(),
                )
            });
        }
        if !state.is_taken && asked.elapsed() > PATIENCE && db.withdraw(number)? {
            return Err(CommandError::Queue(
                "a server runs on this data directory, and does not begin: its log may say why"
                    .into(),
            ));
        }
        thread::sleep(ASK_EVERY);
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
    table(&rows)
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
