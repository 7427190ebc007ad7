//! `snowbank zfs`

use clap::{Args, Subcommand};

use super::CommandError;

mod init;

/// Makes and looks after the datasets of the caches: each cache is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs init tank --dry-run")]
pub(super) struct ZfsArguments {
    #[command(subcommand)]
    command: ZfsCommand,
}

#[derive(Debug, Subcommand)]
enum ZfsCommand {
    Init(init::InitArguments),
}

pub(super) fn run(arguments: &ZfsArguments) -> Result<(), CommandError> {
    match &arguments.command {
        ZfsCommand::Init(arguments) => init::run(arguments),
    }
}
