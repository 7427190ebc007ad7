//! `snowbank verify`

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use clap::Args;
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use super::output::print;
use super::place::PlaceArguments;
use super::progress::say;
use super::{CommandError, collecting};
use crate::app::collecting::Offline;
use crate::app::serving;
use crate::app::verifying::{How, Said, offline};
use crate::config::{CacheConfig, Config};
use crate::index::state::{FindingRecord, StateDb};
use crate::keep::collect::graph::Graph;
use crate::nix::store_path::StorePathHash;

/// How many of the paths that refer to a damaged one are named.
const SHOWN: usize = 10;
/// The same in JSON, which also says how many there are.
const LISTED: usize = 1000;
/// Each time that so many bytes were read, a line says how far it is.
const SAY_EVERY: u64 = 10 << 30;

/// Holds every path of a cache against its bytes: FileHash, NarHash, sizes, references, listing and signatures.
///
/// A server that runs on the data directory does it, while it serves; else it is done here. A path whose NAR is not what
/// its narinfo says is 404 from then on, and its NAR is kept in damaged/. What was interrupted goes on from where it was.
/// The server does the same by itself, at idle priority, each verify_every.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank verify
  snowbank verify --repair
  snowbank verify --findings --cache team

Ends with 1 where something is wrong that was not mended, and lists it with the paths that refer to it.")]
pub(super) struct VerifyArguments {
    /// Mend what can be: listings and signatures from what is there, and what is damaged from the cache's other
    /// sources, its peers, its upstreams and heal_from, which takes a server that runs
    #[arg(long)]
    repair: bool,

    /// Begin anew, rather than go on with what was interrupted
    #[arg(long)]
    anew: bool,

    /// Read nothing, and list what was found before and is not mended
    #[arg(long, conflicts_with_all = ["repair", "anew"])]
    findings: bool,

    /// Only this cache [default: all]
    #[arg(long, value_name = "NAME")]
    cache: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

/// What came of a cache.
struct Outcome<'a> {
    cache: &'a CacheConfig,
    said: Option<Said>,
    findings: Vec<Found>,
}

/// What is wrong with a path, and who needs it.
struct Found {
    hash: StorePathHash,
    what: Vec<FindingRecord>,
    referrers: Vec<StorePathHash>,
}

pub(super) fn run(arguments: &VerifyArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let caches = collecting::caches(&config, arguments.cache.as_deref())?;
    let db = StateDb::open(&config.data_dir)?;
    let how = How { repair: arguments.repair, anew: arguments.anew };
    let mut outcomes = Vec::new();
    for cache in caches {
        let said = match arguments.findings {
            true => None,
            false => Some(verify(&config, cache, &db, how)?),
        };
        let findings = found(cache, &db)?;
        outcomes.push(Outcome { cache, said, findings });
    }
    let text = if arguments.json { describe(&outcomes) } else { show(&outcomes) };
    print(&text);
    let is_bad = |outcome: &&Outcome<'_>| {
        let failed = outcome.said.as_ref().is_some_and(|said| said.error.is_some());
        failed || !outcome.findings.is_empty()
    };
    match outcomes.iter().filter(is_bad).count() {
        0 => Ok(()),
        problems => Err(CommandError::Problems(problems)),
    }
}

fn verify(
    config: &Config,
    cache: &CacheConfig,
    db: &StateDb,
    how: How,
) -> Result<Said, CommandError> {
    let told = Cell::new(0);
    let hears = |said: &Said| {
        if said.bytes / SAY_EVERY > told.get() {
            told.set(said.bytes / SAY_EVERY);
            let (paths, total, bytes) = (said.paths, said.total, BinaryBytes(said.bytes));
            say(&format!("{}: {paths} of {total} paths, {bytes}", cache.name));
        }
    };
    let Some(alone) = serving::alone(&config.data_dir)? else {
        return collecting::by_the_server(cache, db, &how, &mut |said| hears(said));
    };
    let here = Offline::to_collect(config, cache, db)?;
    let goes_on = |said: &Said| {
        hears(said);
        alone.goes_on()
    };
    Ok(offline(config, cache, &here, (db, how), &goes_on)?)
}

/// What is not mended, with what refers to it.
fn found(cache: &CacheConfig, db: &StateDb) -> Result<Vec<Found>, CommandError> {
    let mut by_path: BTreeMap<StorePathHash, Vec<FindingRecord>> = BTreeMap::new();
    for finding in db.findings(&cache.name)? {
        by_path.entry(finding.hash).or_default().push(finding);
    }
    if by_path.is_empty() {
        return Ok(Vec::new());
    }
    let here = Offline::to_look_at(cache)?;
    let store_dir = &here.cache().info.store_dir;
    let graph = Graph::read(here.bank(), &[], store_dir)?;
    let mut referrers: HashMap<StorePathHash, Vec<StorePathHash>> = HashMap::new();
    for index in graph.indices() {
        for reference in graph.references(index) {
            let hash = graph.hash(*reference);
            if by_path.contains_key(&hash) {
                referrers.entry(hash).or_default().push(graph.hash(index));
            }
        }
    }
    let found = |(hash, what)| {
        let referrers = referrers.remove(&hash).unwrap_or_default();
        Found { hash, what, referrers }
    };
    Ok(by_path.into_iter().map(found).collect())
}

fn describe(outcomes: &[Outcome<'_>]) -> String {
    let finding = |found: &Found| {
        let what = found.what.iter().map(|one| json!({ "kind": one.kind, "what": one.what }));
        let referrers = found.referrers.iter().take(LISTED).map(ToString::to_string);
        json!({
            "path": found.hash.to_string(),
            "what": what.collect::<Vec<_>>(),
            "referrers": referrers.collect::<Vec<_>>(),
            "referrer_count": found.referrers.len(),
        })
    };
    let outcome = |outcome: &Outcome<'_>| {
        let mut value = serde_json::to_value(&outcome.said).unwrap_or_default();
        if value.is_null() {
            value = json!({});
        }
        value["cache"] = json!(outcome.cache.name);
        value["findings"] = outcome.findings.iter().map(finding).collect();
        value
    };
    Value::Array(outcomes.iter().map(outcome).collect()).to_string() + "\n"
}

fn show(outcomes: &[Outcome<'_>]) -> String {
    let mut text = String::new();
    for Outcome { cache, said, findings } in outcomes {
        let name = &cache.name;
        if let Some(said) = said {
            let Said { paths, bytes, found, mended, error, .. } = said;
            let bytes = BinaryBytes(*bytes);
            text += &format!(
                "{name}: {paths} paths verified, {bytes}; something was wrong with {found}, {mended} are mended\n"
            );
            if let Some(error) = error {
                text += &format!("{name}: {error}\n");
            }
        }
        for Found { hash, what, referrers } in findings {
            text += &format!("{name}: {hash}\n");
            for one in what {
                text += &format!("    {}: {}\n", one.kind, one.what);
            }
            if !referrers.is_empty() {
                let some = referrers.iter().take(SHOWN).map(ToString::to_string);
                let (count, some) = (referrers.len(), some.collect::<Vec<_>>().join(" "));
                text += &format!("    {count} paths refer to it: {some}\n");
            }
        }
    }
    text
}
