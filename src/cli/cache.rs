//! `snowbank cache`

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{Args, Subcommand};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use super::output::{print, table};
use super::place::PlaceArguments;
use super::zfs::{cache, init};
use super::{CommandError, progress};
use crate::app::datasets;
use crate::auth::{PullPolicy, PushPolicy};
use crate::config::{self, CacheConfig, Config, DEFAULT_CACHE};
use crate::index::state::StateDb;
use crate::keep::destroy::{Doomed, destroy, examine};
use crate::keep::release::Releases;
use crate::zfs::layout::{Files, Found, Member};
use crate::zfs::name::UserName;
use crate::zfs::properties::Role;
use crate::zfs::{DatasetName, Zfs};

/// Lists the caches, makes and destroys their datasets, and forgets where they were.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank cache ls
  snowbank cache create team --quota 500G
  snowbank cache destroy team
  snowbank cache forget team")]
pub(super) struct CacheArguments {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Lists the caches of the configuration
    #[command(after_help = "\
Example:
  snowbank cache ls --json")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Makes the dataset of a cache, and says what the configuration needs; takes root
    #[command(after_help = "\
Example:
  snowbank cache create team --quota 500G")]
    Create(CreateArguments),
    /// Destroys the dataset of a cache with all that is in it, for good; takes root
    ///
    /// It asks for the name again. The cache must not be in the configuration any more, and the server has to
    /// have been started without it, as it would serve nothing but errors.
    #[command(after_help = "\
Examples:
  snowbank cache destroy team
  snowbank cache destroy team --yes team --with-releases")]
    Destroy {
        /// The cache
        #[arg(value_name = "NAME")]
        name: String,
        /// The name again, where nobody can be asked for it
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
        /// Remove its releases too
        #[arg(long)]
        with_releases: bool,
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Forgets that a file system of its own was mounted where a cache lies, so that a directory will do
    #[command(after_help = "\
Example:
  snowbank cache forget team")]
    Forget {
        /// The cache
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        place: PlaceArguments,
    },
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// What it is called: 1 to 63 of a-z 0-9 -
    #[arg(value_name = "NAME")]
    name: String,

    /// How much it may take on disk, snapshots included, such as 500G
    #[arg(long, value_name = "SIZE")]
    quota: Option<String>,

    /// The user that the server runs as
    #[arg(long, value_name = "USER", default_value = "snowbank")]
    user: UserName,

    /// Print the commands that would be run, and run none
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &CacheArguments) -> Result<(), CommandError> {
    match &arguments.command {
        CacheCommand::Ls { json, place } => {
            print(&show(&place.load()?, *json));
            Ok(())
        }
        CacheCommand::Create(arguments) => create(arguments),
        CacheCommand::Destroy { name, yes, with_releases, place } => {
            remove(&place.load()?, name, yes.as_deref(), *with_releases)
        }
        CacheCommand::Forget { name, place } => {
            let config = place.load()?;
            let directory = &cache(&config, name)?.directory;
            let state = StateDb::open_existing(&config.data_dir)?;
            let forgotten = state.map(|state| state.forget_place(directory)).transpose()?;
            print(match forgotten {
                Some(true) => {
                    "forgotten; the server takes the directory as it is at its next start\n"
                }
                _ => "nothing was remembered\n",
            });
            Ok(())
        }
    }
}

fn show(config: &Config, as_json: bool) -> String {
    let dataset =
        |cache: &CacheConfig| datasets::dataset_of(config, cache).map(|it| it.to_string());
    let path = |cache: &CacheConfig| match cache.name.as_str() {
        DEFAULT_CACHE => "/".to_owned(),
        name => format!("/c/{name}/"),
    };
    let push = |cache: &CacheConfig| match cache.push {
        PushPolicy::None => "none",
        PushPolicy::Token => "token",
        PushPolicy::Certificate => "mtls",
        PushPolicy::Open => "open",
    };
    let pull = |cache: &CacheConfig| match cache.pull {
        PullPolicy::Public => "public",
        PullPolicy::Token => "token",
        PullPolicy::Certificate => "mtls",
    };
    if as_json {
        let all = config.caches.iter().map(|cache| {
            json!({
                "name": cache.name,
                "path": path(cache),
                "directory": cache.directory,
                "dataset": dataset(cache),
                "push": push(cache),
                "pull": pull(cache),
                "max_size_bytes": cache.max_size,
            })
        });
        return Value::Array(all.collect()).to_string() + "\n";
    }
    let head = ["CACHE", "PATH", "PUSH", "PULL", "MAX", "DATASET", "DIRECTORY"].map(String::from);
    let rows = config.caches.iter().map(|cache| {
        [
            cache.name.clone(),
            path(cache),
            push(cache).into(),
            pull(cache).into(),
            cache.max_size.map_or_else(|| "none".into(), |size| BinaryBytes(size).to_string()),
            dataset(cache).unwrap_or_else(|| "-".into()),
            cache.directory.display().to_string(),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn create(arguments: &CreateArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let name = &arguments.name;
    config::check_new_cache(name)?;
    let quota = arguments.quota.as_deref();
    let quota = quota.map(|text| config::quota_of_flag("--quota", text)).transpose()?;
    let section = section(name, arguments.quota.as_deref());
    let Some(parent) = &config.zfs.dataset else {
        return Err(CommandError::Usage(format!(
            "a cache is a section of the configuration, and a directory that the server makes itself: \
             put this there and start it again\n\n{section}"
        )));
    };
    let configured = config.caches.iter().find(|cache| cache.name == *name);
    if let (Some(configured), Some(quota)) = (configured, quota)
        && configured.max_size != Some(quota)
    {
        return Err(CommandError::Usage(format!(
            "--quota: the configuration has the cache {name} with another max_size; change it there"
        )));
    }
    let zfs = Zfs::find()?;
    let mut layout = datasets::layout(&config, parent, init::account(&zfs, &arguments.user)?)
        .map_err(|error| CommandError::Usage(error.to_string()))?;
    let dataset = child(parent, name)?;
    layout.members.retain(|member| member.dataset == dataset);
    if layout.members.is_empty() {
        let mountpoint = config.data_dir.join(name);
        layout.members.push(Member {
            dataset: dataset.clone(),
            role: Role::Cache,
            mountpoint,
            quota,
        });
    }
    let plan = layout.plan(&Found::look(&zfs, &layout)?, Files::Refuse)?;
    if arguments.dry_run {
        print(&plan.steps.iter().map(|step| format!("{step}\n")).collect::<String>());
    } else {
        init::carry_out(&plan, &zfs)?;
    }
    if plan.is_empty() {
        print(&format!("nothing to do: {dataset} is there\n"));
    }
    if configured.is_none() {
        print(&format!(
            "\nPut this into the configuration and start the server again:\n\n{section}"
        ));
    }
    Ok(())
}

/// What the configuration needs for a cache.
fn section(name: &str, quota: Option<&str>) -> String {
    let quota = quota.map(|quota| format!("max_size = \"{quota}\"\n")).unwrap_or_default();
    format!("[cache.{name}]\n{quota}")
}

fn child(parent: &DatasetName, name: &str) -> Result<DatasetName, CommandError> {
    parent.child(name).map_err(|error| CommandError::Usage(error.to_string()))
}

fn remove(
    config: &Config,
    name: &str,
    yes: Option<&str>,
    with_releases: bool,
) -> Result<(), CommandError> {
    config::check_new_cache(name)?;
    let Some(parent) = &config.zfs.dataset else {
        return Err(CommandError::NoDataset(name.to_owned()));
    };
    if name == DEFAULT_CACHE || config.caches.iter().any(|cache| cache.name == name) {
        let why = match name {
            DEFAULT_CACHE => "it answers at / and is always there".to_owned(),
            _ => format!("take [cache.{name}] out and start the server again first"),
        };
        return Err(CommandError::Usage(format!("the configuration has the cache {name}: {why}")));
    }
    let dataset = child(parent, name)?;
    let (zfs, state) = (Zfs::find()?, StateDb::open(&config.data_dir)?);
    let of = Releases { zfs: &zfs, state: &state, cache: name, dataset: &dataset };
    let doomed = examine(&of, with_releases)?;
    if !is_meant(name, yes, &doomed)? {
        return Err(CommandError::Usage(format!(
            "{dataset} is not destroyed: the name that was typed is not {name}"
        )));
    }
    destroy(&of, &doomed)?;
    print(&format!("destroyed {dataset}\n"));
    Ok(())
}

/// Whether the name was given twice.
fn is_meant(name: &str, yes: Option<&str>, doomed: &Doomed) -> Result<bool, CommandError> {
    if let Some(yes) = yes {
        return Ok(yes == name);
    }
    let what = &doomed.dataset;
    progress::say(&format!(
        "{} has {} in {} snapshots and itself, and {} releases. All of it goes, for good.",
        what.name,
        BinaryBytes(what.used),
        doomed.snapshots,
        doomed.releases.len()
    ));
    if !io::stdin().is_terminal() {
        return Err(CommandError::Usage(format!("nobody can be asked: say --yes {name}")));
    }
    progress::say("Type the name of the cache to destroy it:");
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed).map_err(CommandError::Input)?;
    Ok(typed.trim() == name)
}
