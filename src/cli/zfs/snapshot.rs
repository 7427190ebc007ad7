//! `snowbank zfs snapshot` and `snowbank zfs snapshots`

use clap::{Args, Subcommand};
use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cache, dataset_of};
use crate::app::urls;
use crate::cli::output::{print, table};
use crate::cli::place::PlaceArguments;
use crate::cli::{CommandError, time};
use crate::config::{CacheConfig, Config};
use crate::keep::snapshots::{list, remove, take};
use crate::zfs::maker::Maker;
use crate::zfs::snapshot::SnapshotInfo;
use crate::zfs::{SnapshotName, Zfs};

/// Makes a snapshot of a cache: from then on its view shows the cache as it is now.
///
/// The server may run and take pushes meanwhile: a snapshot is what a power cut at that moment would
/// leave, and after one every path that can be seen is whole. Uploads that are not finished are not in it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs snapshot default
  snowbank zfs snapshot team before-the-upgrade")]
pub(super) struct SnapshotArguments {
    /// The cache
    #[arg(value_name = "CACHE")]
    cache: String,

    /// What follows the @ [default: manual- and the time, UTC]
    #[arg(value_name = "NAME")]
    name: Option<SnapshotName>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

/// Lists and destroys snapshots of caches.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs snapshots ls
  snowbank zfs snapshots ls team --json
  snowbank zfs snapshots rm team before-the-upgrade")]
pub(super) struct SnapshotsArguments {
    #[command(subcommand)]
    command: SnapshotsCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotsCommand {
    /// Lists the snapshots of one cache, or of all, with the URLs of their views
    Ls {
        /// The cache [default: all of them]
        #[arg(value_name = "CACHE")]
        cache: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Destroys snapshots; those of releases, and those that are held, stay
    Rm {
        /// The cache
        #[arg(value_name = "CACHE")]
        cache: String,
        /// What follows the @
        #[arg(value_name = "NAME", required = true)]
        names: Vec<SnapshotName>,
        #[command(flatten)]
        place: PlaceArguments,
    },
}

pub(super) fn make(arguments: &SnapshotArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let cache = cache(&config, &arguments.cache)?;
    let dataset = dataset_of(&config, cache)?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => Maker::Manual.name_at(Timestamp::now()).map_err(usage)?,
    };
    let snapshot = dataset.snapshot(&name).map_err(usage)?;
    take(&Zfs::find()?, &snapshot, &Maker::Manual)?;
    let url = urls::view(&config, &cache.name, &name);
    print(&match arguments.json {
        true => json!({ "snapshot": snapshot.to_string(), "url": url }).to_string() + "\n",
        false => format!("{snapshot}\n{url}\n"),
    });
    Ok(())
}

fn usage(error: crate::zfs::NameError) -> CommandError {
    CommandError::Usage(error.to_string())
}

pub(super) fn run(arguments: &SnapshotsArguments) -> Result<(), CommandError> {
    match &arguments.command {
        SnapshotsCommand::Ls { cache, json, place } => {
            show(&place.load()?, cache.as_deref(), *json)
        }
        SnapshotsCommand::Rm { cache: name, names, place } => {
            let config = place.load()?;
            let dataset = dataset_of(&config, cache(&config, name)?)?;
            let zfs = Zfs::find()?;
            for name in names {
                let snapshot = dataset.snapshot(name).map_err(usage)?;
                remove(&zfs, &snapshot)?;
                print(&format!("destroyed {snapshot}\n"));
            }
            Ok(())
        }
    }
}

/// A snapshot of a cache, as it is listed.
struct Listed<'a> {
    cache: &'a CacheConfig,
    snapshot: SnapshotInfo,
    maker: Option<Maker>,
    url: String,
}

fn show(config: &Config, name: Option<&str>, json: bool) -> Result<(), CommandError> {
    let zfs = Zfs::find()?;
    let named = name.map(|name| cache(config, name)).transpose()?;
    let mut listed = Vec::new();
    for cache in &config.caches {
        if named.is_some_and(|named| named.name != cache.name) {
            continue;
        }
        let dataset = match (dataset_of(config, cache), named) {
            (Ok(dataset), _) => dataset,
            // Where all are listed, those that are no datasets have no snapshots.
            (Err(_), None) => continue,
            (Err(error), Some(_)) => return Err(error),
        };
        for (snapshot, maker) in list(&zfs, &dataset)? {
            let url = urls::view(config, &cache.name, snapshot.snapshot.name());
            listed.push(Listed { cache, snapshot, maker, url });
        }
    }
    print(&if json {
        Value::Array(listed.iter().map(describe).collect()).to_string() + "\n"
    } else {
        rows(&listed)
    });
    Ok(())
}

fn describe(listed: &Listed<'_>) -> Value {
    let snapshot = &listed.snapshot;
    json!({
        "cache": listed.cache.name,
        "snapshot": snapshot.snapshot.to_string(),
        "name": snapshot.snapshot.name().as_str(),
        "made": time::show(snapshot.creation.cast_signed()),
        "made_by": listed.maker.as_ref().map(ToString::to_string),
        "used_bytes": snapshot.used,
        "referenced_bytes": snapshot.referenced,
        "holds": snapshot.holds,
        "guid": snapshot.guid.to_string(),
        "url": listed.url,
    })
}

fn rows(listed: &[Listed<'_>]) -> String {
    let head = ["CACHE", "SNAPSHOT", "MADE", "BY", "PINS", "HOLDS", "VIEW"].map(String::from);
    let rows = listed.iter().map(|listed| {
        let snapshot = &listed.snapshot;
        [
            listed.cache.name.clone(),
            snapshot.snapshot.name().to_string(),
            time::show(snapshot.creation.cast_signed()),
            listed.maker.as_ref().map_or_else(|| "others".into(), ToString::to_string),
            BinaryBytes(snapshot.used).to_string(),
            snapshot.holds.to_string(),
            listed.url.clone(),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
