//! The command line: one file a command, arguments and output, no logic.

use std::sync::LazyLock;

use clap::{Parser, Subcommand};

mod key;
mod logging;
mod place;
mod serve;
mod time;
mod token;
mod why;

use std::io;

use crate::app::AppError;
use crate::auth::token::NoRandom;
use crate::bank::BankError;
use crate::config::ConfigError;
use crate::index::state::StateError;
use crate::nix::signature::SignatureError;
use crate::nix::store_path::StorePathHash;
use crate::sign::KeyError;

/// A Nix binary cache server that knows it lives on ZFS.
#[derive(Debug, Parser)]
#[command(name = "snowbank", version = VERSION.as_str(), arg_required_else_help = true)]
#[command(after_help = "Example:\n  snowbank serve --listen 0.0.0.0:5000")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
    Key(key::KeyArguments),
    Token(token::TokenArguments),
    Why(why::WhyArguments),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The name of a key cannot be one.
    #[error("{0}; a name such as cache.example.org-1 is")]
    KeyName(SignatureError),
    /// What was written on the command line cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// There is no token of that name.
    #[error("there is no token {0}; `snowbank token ls` lists them")]
    NoToken(String),
    /// A token could not be made.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// The state database cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A bank cannot be read.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// A path is in no bank that was looked at.
    #[error("{0} is in no bank; what the host's own store serves is not in one either")]
    NotHere(StorePathHash),
    /// What was to be printed could not be.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The server could not start, or could not go on.
    #[error(transparent)]
    App(#[from] AppError),
}

impl CommandError {
    /// What the process ends with: 2 where the user has to change what they wrote (as clap does for
    /// a wrong flag), 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::KeyName(_) | Self::Usage(_) => 2,
            Self::Key(_)
            | Self::App(_)
            | Self::NoToken(_)
            | Self::NoRandom(_)
            | Self::State(_)
            | Self::Bank(_)
            | Self::NotHere(_)
            | Self::Output(_) => 1,
        }
    }
}

/// Runs the command that was asked for.
pub fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
    }
}

/// The version with what it was built from and for; a packager sets `SNOWBANK_REVISION`.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let revision = option_env!("SNOWBANK_REVISION").unwrap_or("unknown revision");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (arch, system) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("{} ({revision}, {profile}, {arch}-{system})", env!("CARGO_PKG_VERSION"))
});

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_version_says_what_was_built() {
        assert!(VERSION.starts_with(env!("CARGO_PKG_VERSION")), "{}", *VERSION);
        assert!(VERSION.contains(std::env::consts::ARCH), "{}", *VERSION);
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Arguments::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
        }
    }
}
