//! `snowbank zfs`

use clap::{Args, Subcommand};

use super::CommandError;
use crate::app::datasets;
use crate::config::{CacheConfig, Config};
use crate::zfs::DatasetName;

pub(in crate::cli) mod init;
mod replicate;
mod snapshot;
mod status;

/// Makes and looks after the datasets of the caches: each cache is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs init tank --dry-run
  snowbank zfs status
  snowbank zfs snapshot default before-the-upgrade
  snowbank zfs snapshots ls
  snowbank zfs replicate default --to snowbank@node-b:tank/snowbank/from-a --every 5m")]
pub(super) struct ZfsArguments {
    #[command(subcommand)]
    command: ZfsCommand,
}

#[derive(Debug, Subcommand)]
enum ZfsCommand {
    Init(init::InitArguments),
    Status(status::StatusArguments),
    Snapshot(snapshot::SnapshotArguments),
    Snapshots(snapshot::SnapshotsArguments),
    Replicate(replicate::ReplicateArguments),
}

pub(super) fn run(arguments: &ZfsArguments) -> Result<(), CommandError> {
    match &arguments.command {
        ZfsCommand::Init(arguments) => init::run(arguments),
        ZfsCommand::Status(arguments) => status::run(arguments),
        ZfsCommand::Snapshot(arguments) => snapshot::make(arguments),
        ZfsCommand::Snapshots(arguments) => snapshot::run(arguments),
        ZfsCommand::Replicate(arguments) => replicate::run(arguments),
    }
}

/// A cache of the configuration, by its name.
pub(in crate::cli) fn cache<'a>(
    config: &'a Config,
    name: &str,
) -> Result<&'a CacheConfig, CommandError> {
    config.caches.iter().find(|cache| cache.name == name).ok_or_else(|| {
        let known: Vec<_> = config.caches.iter().map(|cache| cache.name.as_str()).collect();
        CommandError::Usage(format!("there is no cache {name}, only {}", known.join(", ")))
    })
}

/// The dataset that a cache is.
pub(in crate::cli) fn dataset_of(
    config: &Config,
    cache: &CacheConfig,
) -> Result<DatasetName, CommandError> {
    datasets::dataset_of(config, cache).ok_or_else(|| CommandError::NoDataset(cache.name.clone()))
}
