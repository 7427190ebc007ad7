//! Where log lines go: standard error, set up once, before anything else runs.

mod json;
mod waiting;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::json::Json;
use self::waiting::Waiting;
use crate::config::{Log, LogFormat};

/// How a command logs that ends by itself: only what somebody should look at.
pub(super) const fn of_command() -> Log {
    Log { format: LogFormat::Text, level: LevelFilter::WARN, requests: false }
}

/// How a service without a configuration file logs.
pub(super) const fn of_service() -> Log {
    Log { format: LogFormat::Text, level: LevelFilter::INFO, requests: false }
}

/// Starts logging as `log` says. `RUST_LOG` adds to it, for whoever hunts a bug. What is given back is kept until the
/// last line has been said.
///
/// Under systemd the journal has its own time stamps, so text lines there leave theirs out.
pub(super) fn start(log: &Log) -> Option<Waiting> {
    let filter =
        EnvFilter::builder().with_default_directive(Directive::from(log.level)).from_env_lossy();
    // A line now and then goes where it belongs at once.
    let waiting = if log.requests { Waiting::start() } else { None };
    let writer = match &waiting {
        Some(waiting) => BoxMakeWriter::new(waiting.writer()),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // An error means that logging runs already, as in a test; then there is nothing to do.
    let _already_running = match log.format {
        LogFormat::Json => lines.event_format(Json).try_init(),
        LogFormat::Text if in_journal => lines.without_time().try_init(),
        LogFormat::Text => lines.try_init(),
    };
    waiting
}
