//! The command line: one file a command, arguments and output, no logic.
#![allow(
    rustdoc::bare_urls,
    rustdoc::invalid_html_tags,
    reason = "the comments on arguments are help texts, printed as they stand"
)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

mod agent;
mod ca;
mod cache;
mod client;
mod collecting;
mod doctor;
mod format;
mod gc;
mod hook;
mod key;
mod logging;
mod output;
mod pin;
mod place;
mod progress;
mod push;
mod queue;
mod release;
mod rm;
mod serve;
mod time;
mod token;
mod top;
mod transfer;
mod verify;
mod why;
mod zfs;

use std::io;

use crate::app::AppError;
use crate::app::why::server::LookError;
use crate::auth::token::NoRandom;
use crate::bank::BankError;
use crate::client::closure::ClosureError;
use crate::client::credentials::TokenError;
use crate::client::export::ExportError;
use crate::client::import::ImportError;
use crate::client::origin::OriginError;
use crate::client::push::PushError;
use crate::client::remote::RemoteUrlError;
use crate::client::scrape::ScrapeError;
use crate::config::ConfigError;
use crate::format::apply::FormatError;
use crate::format::lock::LockError;
use crate::format::move_nix::MoveError;
use crate::index::state::StateError;
use crate::keep::collect::CollectError;
use crate::keep::destroy::DestroyError;
use crate::keep::release::ReleaseError;
use crate::keep::snapshots::SnapshotError;
use crate::keep::verify::VerifyError;
use crate::nix::signature::SignatureError;
use crate::nix::store_path::StorePathHash;
use crate::sign::KeyError;
use crate::tls::authority::AuthorityError;
use crate::zfs::ZfsError;
use crate::zfs::layout::LayoutError;
use crate::zfs::replicate::ReplicateError;

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
    Push(push::PushArguments),
    Hook(hook::HookArguments),
    Agent(agent::AgentArguments),
    Queue(queue::QueueArguments),
    Cache(cache::CacheArguments),
    Key(key::KeyArguments),
    Token(token::TokenArguments),
    Ca(ca::CaArguments),
    Pin(pin::PinArguments),
    Import(transfer::ImportArguments),
    Export(transfer::ExportArguments),
    Gc(gc::GcArguments),
    Verify(verify::VerifyArguments),
    Rm(rm::RmArguments),
    Release(release::ReleaseArguments),
    Why(why::WhyArguments),
    Top(top::TopArguments),
    Doctor(doctor::DoctorArguments),
    Zfs(zfs::ZfsArguments),
    Format(format::FormatArguments),
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
    /// Nothing that a derivation makes is known.
    #[error("no output of {0} is known here: neither its file nor anything that it made")]
    NoOutput(String),
    /// A server does not say how it is.
    #[error(transparent)]
    Scrape(#[from] ScrapeError),
    /// What a server here has cannot be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// A path is in no bank that was looked at.
    #[error(
        "{0} is in no bank here, and in no cache that was asked; what a host's own store serves is in no bank"
    )]
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
    /// The address of a cache cannot be one.
    #[error(transparent)]
    Address(#[from] RemoteUrlError),
    /// There is no token though one was named.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A path is not one of the store.
    #[error(transparent)]
    Path(#[from] ClosureError),
    /// Not everything is acknowledged.
    #[error(transparent)]
    Push(#[from] PushError),
    /// Disks are not as they should be.
    #[error(transparent)]
    Format(Box<FormatError>),
    /// `/nix` was not moved.
    #[error(transparent)]
    MoveNix(Box<MoveError>),
    /// Another one is at the disks.
    #[error(transparent)]
    FormatLock(LockError),
    /// The queue is not as it should be.
    #[error("{0}")]
    Queue(String),
    /// ZFS is not there, or refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The datasets cannot be made as they are to be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Only root can do this.
    #[error("{0} takes root: run it with sudo")]
    NotRoot(&'static str),
    /// A cache is no dataset.
    #[error(
        "the cache {0} is no dataset: `snowbank zfs init POOL` makes it one, and says what to put into \
         the configuration"
    )]
    NoDataset(String),
    /// A snapshot is not destroyed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A release is not made, or not removed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A cache is not destroyed.
    #[error(transparent)]
    Destroy(#[from] DestroyError),
    /// The doctor found something.
    #[error("problems found: {0}")]
    Problems(usize),
    /// What somebody types cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(#[source] io::Error),
    /// A copy is not what it should be.
    #[error(transparent)]
    Replicate(#[from] ReplicateError),
    /// A cache is not collected.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// A binary cache cannot be read.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Not everything was imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// What was exported is not whole.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A cache is not verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A certificate authority does not do what it is asked.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl CommandError {
    /// What the process ends with: 2 where the user has to change what they wrote (as clap does for
    /// a wrong flag), 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::KeyName(_)
            | Self::Usage(_)
            | Self::Address(_)
            | Self::Token(_)
            | Self::Origin(OriginError::Address(_) | OriginError::NoList(_))
            | Self::Import(ImportError::Origin(OriginError::NoList(_)))
            | Self::Path(ClosureError::NotThere { .. } | ClosureError::NotInStore { .. }) => 2,
            Self::Format(error) if error.is_refusal() => 2,
            Self::MoveNix(error) if error.is_refusal() => 2,
            Self::Authority(error) if error.is_refusal() => 2,
            Self::Key(_)
            | Self::App(_)
            | Self::NoToken(_)
            | Self::NoRandom(_)
            | Self::State(_)
            | Self::Verify(_)
            | Self::Origin(_)
            | Self::Import(_)
            | Self::Export(_)
            | Self::Bank(_)
            | Self::Look(_)
            | Self::Scrape(_)
            | Self::NotHere(_)
            | Self::NoOutput(_)
            | Self::Output(_)
            | Self::Path(_)
            | Self::Push(_)
            | Self::Format(_)
            | Self::MoveNix(_)
            | Self::FormatLock(_)
            | Self::Queue(_)
            | Self::Zfs(_)
            | Self::Layout(_)
            | Self::NotRoot(_)
            | Self::NoDataset(_)
            | Self::Snapshot(_)
            | Self::Release(_)
            | Self::Destroy(_)
            | Self::Problems(_)
            | Self::Input(_)
            | Self::Replicate(_)
            | Self::Collect(_)
            | Self::Authority(_) => 1,
        }
    }
}

/// The name under which the program is `snowbank hook`: Nix calls its hook without arguments.
const HOOK_NAME: &str = "snowbank-hook";

/// Reads the words of the command line, the program's name first, or says how to end.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let name = words.first().and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name == HOOK_NAME) {
        words.insert(1, "hook".into());
    }
    let is_hook = words.get(1).is_some_and(|word| word == "hook");
    Arguments::try_parse_from(words).map_err(|error| {
        if is_hook && error.use_stderr() {
            // Even so: after a hook that fails, Nix builds nothing more.
            hook::complain(&error.to_string());
            return ExitCode::SUCCESS;
        }
        // Nobody may be reading.
        let _ = error.print();
        u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
    })
}

/// Runs the command that was asked for.
pub fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Push(arguments) => push::run(&arguments),
        Command::Hook(arguments) => {
            hook::run(&arguments);
            Ok(())
        }
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Queue(arguments) => queue::run(&arguments),
        Command::Cache(arguments) => cache::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Pin(arguments) => pin::run(&arguments),
        Command::Import(arguments) => transfer::import(&arguments),
        Command::Export(arguments) => transfer::export(&arguments),
        Command::Gc(arguments) => gc::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Rm(arguments) => rm::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Zfs(arguments) => zfs::run(&arguments),
        Command::Format(arguments) => format::run(&arguments),
    }
}

/// Who types this, for what is kept on record of it.
fn user() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    user.unwrap_or_else(|_| format!("user {}", rustix::process::getuid().as_raw()))
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
    fn the_program_is_the_hook_under_the_hooks_name_and_the_hook_never_fails() {
        let parsed = |words: &[&str]| parse(words.iter().map(OsString::from));
        let command = |words: &[&str]| parsed(words).map(|arguments| arguments.command);
        assert!(matches!(command(&["/bin/snowbank-hook"]), Ok(Command::Hook(_))));
        assert!(matches!(command(&["snowbank", "hook"]), Ok(Command::Hook(_))));
        let failed = |words: &[&str]| format!("{:?}", parsed(words).unwrap_err());
        assert_eq!(failed(&["snowbank-hook", "--what"]), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(failed(&["snowbank", "push"]), format!("{:?}", ExitCode::from(2)));
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
            // Those with few arguments show the examples of all at their head.
            if ["zfs", "cache", "release", "ca", "pin"].contains(&command.get_name()) {
                let below = command.get_subcommands_mut();
                for below in below.filter(|below| below.get_name() != "help") {
                    let help = below.render_long_help().to_string();
                    assert!(help.contains("Example"), "{help}");
                }
            }
        }
    }
}
