//! `snowbank push`

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::client::{ServerArguments, StoreArguments, TransferArguments, duration};
use super::{CommandError, logging};
use crate::client::progress::Progress;
use crate::client::push::{Push, PushSettings, PushSummary};
use crate::client::retry::{Patience, Stop};
use crate::nix::store_path::StorePath;

/// Pushes store paths, with everything they refer to.
///
/// Asks the cache once what it lacks, sends that, and makes it visible as a whole. What one of the
/// cache's upstreams signed stays where it is. Interrupted, it goes on where it was when it is run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank push ./result
  snowbank push ./result --to https://cache.example.org --cache team --token-file /run/keys/push
  snowbank push $(nix-build --no-out-link) --json > pushed.json
  snowbank push /run/current-system --dry-run
  snowbank push ./result --repair

What the server cannot do now (it is away, restarting, overloaded or full) is tried again for --retry-for,
counted anew from each success; with --wait for as long as it takes. What it refuses is an error at once,
with its reasons; the other paths are sent all the same, and are not sent again by the next push.

Exit codes: 0 everything is acknowledged, 1 something failed, 2 the command was wrong.")]
pub(super) struct PushArguments {
    /// Store paths, symlinks to them such as ./result, or names such as <hash>-hello
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    server: ServerArguments,

    #[command(flatten)]
    store: StoreArguments,

    #[command(flatten)]
    transfer: TransferArguments,

    /// Have the server hash what it has of these paths, and send again what is wrong there
    #[arg(long)]
    repair: bool,

    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,

    /// Keep trying until the server is there and has acknowledged everything, however long it takes
    #[arg(long)]
    wait: bool,

    /// How long to keep trying when the server cannot [example: --retry-for 1h]
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = duration, conflicts_with = "wait")]
    retry_for: Duration,

    /// Print what was done as JSON on standard output
    #[arg(long)]
    json: bool,

    /// Say nothing but what goes wrong
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(arguments: &PushArguments) -> Result<(), CommandError> {
    logging::start(&logging::of_command());
    let remote = arguments.server.remote(arguments.transfer.jobs)?;
    let paths = arguments.store.paths()?;
    let resolve = |path: &PathBuf| paths.resolve(path);
    let roots: Vec<StorePath> = arguments.paths.iter().map(resolve).collect::<Result<_, _>>()?;
    let settings = PushSettings {
        level: arguments.transfer.level,
        jobs: arguments.transfer.jobs,
        all: arguments.transfer.all,
        repair: arguments.repair,
        dry_run: arguments.dry_run,
        patience: Patience { retry_for: (!arguments.wait).then_some(arguments.retry_for) },
        daemon_socket: arguments.store.daemon_socket(),
    };
    let progress = Progress::new(arguments.quiet);
    let stop = Stop::default();
    let push = Push {
        remote: &remote,
        paths: &paths,
        settings: &settings,
        stop: &stop,
        events: &progress,
    };
    let summary = push.run(&roots).inspect_err(|_| progress.abandon())?;
    progress.finish(&summary);
    print(&summary, arguments.json);
    Ok(())
}

fn print(summary: &PushSummary, json: bool) {
    let mut text = String::new();
    if json {
        text = serde_json::to_string_pretty(summary).unwrap_or_default();
        text.push('\n');
    } else if summary.dry_run {
        summary.pushed.iter().for_each(|path| text += &format!("{path}\n"));
    }
    // A closed pipe (`| head`) is no failure of ours.
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Arguments;

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_sent() {
        for words in [
            vec!["push"],
            vec!["push", "x", "--jobs", "0"],
            vec!["push", "x", "--retry-for", "soon"],
            vec!["push", "x", "--wait", "--retry-for", "1m"],
        ] {
            let words = [vec!["snowbank"], words].concat();
            assert_eq!(Arguments::try_parse_from(&words).unwrap_err().exit_code(), 2, "{words:?}");
        }
        let words = ["snowbank", "push", "a", "b", "--level", "-3", "--wait"];
        assert!(Arguments::try_parse_from(words).is_ok());
    }
}
