//! `snowbank release`

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::{print, table};
use super::place::OfCache;
use super::zfs::{cache, dataset_of};
use super::{CommandError, time};
use crate::app::urls;
use crate::bank::{Bank, BankError, open_regular};
use crate::config::{CacheConfig, Config};
use crate::index::state::StateDb;
use crate::keep::release::{Release, Releases};
use crate::nix::cache_info::CacheInfo;
use crate::nix::store_path::StorePathHash;
use crate::zfs::Zfs;
use crate::zfs::maker::Maker;

/// Keeps a state of a cache by name: a snapshot that is held, with a view, and a pin of its paths.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank release create 26.05
  snowbank release create 26.05 --cache team ./result /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello
  snowbank release ls
  snowbank release rm 26.05")]
pub(super) struct ReleaseArguments {
    #[command(subcommand)]
    command: ReleaseCommand,
}

#[derive(Debug, Subcommand)]
enum ReleaseCommand {
    /// Makes a release of what the cache has now
    #[command(after_help = "\
Examples:
  snowbank release create 26.05
  snowbank release create 26.05 --cache team ./result")]
    Create {
        /// What it is called; its snapshot is release-NAME
        #[arg(value_name = "NAME")]
        name: String,
        /// What the live cache is to keep, with all that it refers to: store paths, links to such, or
        /// hashes [default: everything that it has]
        #[arg(value_name = "PATH")]
        paths: Vec<String>,
        #[command(flatten)]
        of: OfCache,
    },
    /// Lists the releases, with the URLs of their views
    #[command(after_help = "\
Examples:
  snowbank release ls
  snowbank release ls --cache team --json")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        of: OfCache,
    },
    /// Removes a release: its hold, its snapshot and its pin
    #[command(after_help = "\
Example:
  snowbank release rm 26.05 --cache team")]
    Rm {
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        of: OfCache,
    },
}

pub(super) fn run(arguments: &ReleaseArguments) -> Result<(), CommandError> {
    let of = match &arguments.command {
        ReleaseCommand::Create { of, .. }
        | ReleaseCommand::Ls { of, .. }
        | ReleaseCommand::Rm { of, .. } => of,
    };
    let config = of.place.load()?;
    let cache = cache(&config, &of.cache)?;
    let dataset = dataset_of(&config, cache)?;
    let (zfs, state) = (Zfs::find()?, StateDb::open(&config.data_dir)?);
    let releases = Releases { zfs: &zfs, state: &state, cache: &cache.name, dataset: &dataset };
    match &arguments.command {
        ReleaseCommand::Create { name, paths, .. } => {
            Maker::name_of_release(name).map_err(|error| CommandError::Usage(error.to_string()))?;
            let paths = pinned(cache, paths)?;
            let now = Timestamp::now().as_second();
            let snapshot = releases.create(name, &paths, now)?;
            let url = urls::view(&config, &cache.name, snapshot.name());
            print(&format!("{snapshot}, {} paths pinned\n{url}\n", paths.len()));
        }
        ReleaseCommand::Ls { json, .. } => {
            let listed = releases.list()?;
            print(&show(&config, cache, &listed, *json));
        }
        ReleaseCommand::Rm { name, .. } => {
            releases.remove(name)?;
            print(&format!("removed {name}\n"));
        }
    }
    Ok(())
}

/// The paths that are named, which the cache must have; all of it where none is. They are found before the
/// snapshot is made, so that it has all of them.
fn pinned(cache: &CacheConfig, named: &[String]) -> Result<Vec<StorePathHash>, CommandError> {
    if named.is_empty() {
        let directory = cache.directory.clone();
        let Some(store_dir) = Bank::store_dir_at(&directory) else {
            return Err(BankError::Away(directory).into());
        };
        let (want_mass_query, priority) = (cache.want_mass_query, cache.priority);
        let info = CacheInfo { store_dir, want_mass_query, priority };
        let mut all = BTreeSet::new();
        Bank::of_others(directory, info).scan(|hash| {
            all.insert(hash);
        })?;
        return Ok(all.into_iter().collect());
    }
    self::named(cache, named)
}

/// The paths that are named, which the cache must have.
pub(super) fn named(
    cache: &CacheConfig,
    named: &[String],
) -> Result<Vec<StorePathHash>, CommandError> {
    let mut paths = BTreeSet::new();
    for text in named {
        // A link such as ./result leads to the path; what is no file here is a name of one.
        let real = std::fs::canonicalize(text).ok().map(|real| real.display().to_string());
        let hash = real
            .as_deref()
            .and_then(StorePathHash::in_text)
            .or_else(|| StorePathHash::in_text(text));
        let hash = hash.ok_or_else(|| {
            CommandError::Usage(format!("{text:?} is no store path and no hash of one"))
        })?;
        if open_regular(&cache.directory.join(format!("{hash}.narinfo")))?.is_none() {
            return Err(CommandError::NotHere(hash));
        }
        paths.insert(hash);
    }
    Ok(paths.into_iter().collect())
}

fn show(config: &Config, cache: &CacheConfig, listed: &[Release], json: bool) -> String {
    let url = |release: &Release| {
        let snapshot = release.snapshot.as_ref()?;
        Some(urls::view(config, &cache.name, snapshot.snapshot.name()))
    };
    let made = |release: &Release| {
        let of_snapshot = release.snapshot.as_ref().map(|there| there.creation.cast_signed());
        of_snapshot.or_else(|| release.pin.as_ref().map(|pin| pin.created)).map(time::show)
    };
    if json {
        let all = listed.iter().map(|release| {
            json!({
                "cache": cache.name,
                "name": release.name,
                "snapshot": release.snapshot.as_ref().map(|there| there.snapshot.to_string()),
                "made": made(release),
                "held": release.held,
                "pinned_paths": release.pin.as_ref().map(|pin| pin.paths),
                "used_bytes": release.snapshot.as_ref().map(|there| there.used),
                "url": url(release),
            })
        });
        return Value::Array(all.collect()).to_string() + "\n";
    }
    let head = ["RELEASE", "MADE", "HELD", "PATHS", "PINS", "VIEW"].map(String::from);
    let rows = listed.iter().map(|release| {
        let missing = || "-".to_owned();
        let used = release.snapshot.as_ref().map(|there| BinaryBytes(there.used).to_string());
        [
            release.name.clone(),
            made(release).unwrap_or_else(missing),
            if release.held { "yes" } else { "no" }.into(),
            release.pin.as_ref().map_or_else(missing, |pin| pin.paths.to_string()),
            used.unwrap_or_else(missing),
            url(release).unwrap_or_else(|| "its snapshot is gone".into()),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
