//! The command line: one file a command, arguments and output, no logic.

use std::sync::LazyLock;

use clap::{Parser, Subcommand};

mod logging;
mod serve;

use crate::app::AppError;
use crate::config::ConfigError;

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
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server could not start, or could not go on.
    #[error(transparent)]
    App(#[from] AppError),
}

impl CommandError {
    /// What the process ends with: 2 where the user has to change what they wrote (as clap does for
    /// a wrong flag), 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::App(_) => 1,
        }
    }
}

/// Runs the command that was asked for.
pub fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
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
