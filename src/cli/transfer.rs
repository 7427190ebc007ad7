//! `snowbank import` and `snowbank export`

use std::io::{self, BufRead as _, BufWriter, IsTerminal as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::BinaryBytes;

use super::client::{ServerArguments, duration, jobs};
use super::output::print;
use super::progress::say;
use super::{CommandError, logging};
use crate::client::export::{Export, ExportSummary};
use crate::client::import::{Import, ImportSummary};
use crate::client::origin::Origin;
use crate::client::progress::Progress;
use crate::client::retry::{Patience, Stop};
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StoreDir, StorePathHash};

/// How often a line says how far an export is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Brings the paths of another binary cache into one of ours.
///
/// All of a directory; of a server, which cannot be listed, the paths that are named. What they refer to comes with
/// them, and before them. What the cache has is not sent again, so an import that was interrupted goes on when it is run
/// again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank import /var/cache/nix
  snowbank import file:///mnt/old-cache --to https://cache.example.org --token-file /run/keys/push
  snowbank import http://old-cache:5000 $(readlink -f result) --to http://127.0.0.1:5000
  nix path-info --all | snowbank import https://cache.example.org -

Any cache that Nix reads will do: file://, Harmonia, nix-serve, attic, cache.nixos.org.

Exit codes: 0 everything is there, 1 something is not, 2 the command was wrong.")]
pub(super) struct ImportArguments {
    /// The cache: a directory, file:///PATH, http://HOST or https://HOST
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Store paths, or their hashes; - reads them from standard input
    #[arg(value_name = "PATH")]
    paths: Vec<String>,

    #[command(flatten)]
    server: ServerArguments,

    /// Leave the signatures behind, such as those of a key that has the name of one of the server's and is another; the
    /// server signs what it serves
    #[arg(long)]
    without_signatures: bool,

    /// NARs that are sent at once
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = jobs)]
    jobs: usize,

    /// How long to keep trying when the server cannot [example: --retry-for 1h]
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = duration)]
    retry_for: Duration,

    /// Print what was done as JSON on standard output
    #[arg(long)]
    json: bool,

    /// Say nothing but what goes wrong
    #[arg(long, short)]
    quiet: bool,
}

/// Takes paths out of a binary cache, with all that they refer to.
///
/// To standard output, or into a file, in the format of `nix-store --export`; or into a directory as a cache of their
/// own. Every NAR is held against its NarHash on the way: where one is wrong, what was written cannot be imported as if
/// it were whole.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank export --from http://127.0.0.1:5000 /nix/store/0c5p…-hello | ssh host nix-store --import
  snowbank export --from /var/lib/snowbank/default 0c5p… --output closure.nar
  snowbank export --from https://cache.example.org $(readlink -f result) --file-cache /mnt/usb

With --output and --file-cache, an export that was interrupted goes on when it is run again.")]
pub(super) struct ExportArguments {
    /// Store paths, or their hashes; - reads them from standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,

    /// The cache: a directory, file:///PATH, http://HOST or https://HOST
    #[arg(
        long,
        value_name = "SOURCE",
        env = "SNOWBANK_TO",
        default_value = "http://127.0.0.1:5000"
    )]
    from: String,

    /// Write to this file, which is there when it is whole
    #[arg(long, value_name = "FILE", conflicts_with = "file_cache")]
    output: Option<PathBuf>,

    /// Write a binary cache into this directory
    #[arg(long, value_name = "DIR")]
    file_cache: Option<PathBuf>,

    /// Only the paths that are named, and not what they refer to
    #[arg(long)]
    no_closure: bool,

    /// Print what was done as JSON on standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn import(arguments: &ImportArguments) -> Result<(), CommandError> {
    logging::start(&logging::of_command());
    let lookup = |name: &str| std::env::var_os(name);
    let origin = Origin::open(&arguments.source, arguments.jobs, &lookup)?;
    let paths = hashes(&arguments.paths, origin.store_dir())?;
    if paths.is_empty() && !arguments.paths.is_empty() {
        return Err(CommandError::Usage("no path stands on standard input".into()));
    }
    let remote = arguments.server.remote(arguments.jobs)?;
    let (progress, stop) = (Progress::new(arguments.quiet), Stop::default());
    let import = Import {
        origin: &origin,
        remote: &remote,
        without_signatures: arguments.without_signatures,
        jobs: arguments.jobs,
        patience: Patience { retry_for: Some(arguments.retry_for) },
        stop: &stop,
        events: &progress,
    };
    let summary = import.run(&paths);
    progress.abandon();
    let summary = summary?;
    show_import(&summary, arguments);
    match summary.failed.len() {
        0 => Ok(()),
        problems => Err(CommandError::Problems(problems)),
    }
}

fn show_import(summary: &ImportSummary, arguments: &ImportArguments) {
    if arguments.json {
        print(&(serde_json::to_string(summary).unwrap_or_default() + "\n"));
        return;
    }
    let ImportSummary { imported, present, nar_bytes, failed } = summary;
    if !arguments.quiet {
        let bytes = BinaryBytes(*nar_bytes);
        say(&format!("{imported} paths imported, {bytes}; {present} were there"));
    }
    for one in failed {
        say(&format!("{} is not imported: {}", one.path, one.why));
    }
}

pub(super) fn export(arguments: &ExportArguments) -> Result<(), CommandError> {
    let to_terminal = arguments.output.is_none() && arguments.file_cache.is_none();
    if to_terminal && (io::stdout().is_terminal() || arguments.json) {
        let why =
            "NARs are nothing to read: redirect standard output, or give --output or --file-cache";
        return Err(CommandError::Usage(why.into()));
    }
    let lookup = |name: &str| std::env::var_os(name);
    let origin = Origin::open(&arguments.from, 1, &lookup)?;
    let roots = hashes(&arguments.paths, origin.store_dir())?;
    let told = std::cell::Cell::new((Instant::now(), 0_usize));
    let each = |narinfo: &NarInfo| {
        let (at, count) = told.get();
        told.set((at, count + 1));
        if at.elapsed() >= SAY_EVERY {
            told.set((Instant::now(), count + 1));
            say(&format!("{} paths written, the last one is {}", count + 1, narinfo.info.path));
        }
    };
    let export = Export { origin: &origin, each: &each };
    let paths = export.paths(&roots, !arguments.no_closure)?;
    let summary = match (&arguments.output, &arguments.file_cache) {
        (Some(file), _) => export.file(&paths, file)?,
        (None, Some(directory)) => export.cache(&paths, directory)?,
        (None, None) => export.stream(&paths, &mut BufWriter::new(io::stdout().lock()))?,
    };
    if arguments.json {
        print(&(serde_json::to_string(&summary).unwrap_or_default() + "\n"));
    } else {
        let ExportSummary { written, present, nar_bytes } = summary;
        let bytes = BinaryBytes(nar_bytes);
        say(&format!("{written} paths written, {bytes}; {present} were there"));
    }
    Ok(())
}

/// The hashes of paths as people write them.
fn hashes(texts: &[String], store_dir: &StoreDir) -> Result<Vec<StorePathHash>, CommandError> {
    let mut all = Vec::new();
    for text in texts {
        if text == "-" {
            for line in io::stdin().lock().lines() {
                let line = line.map_err(CommandError::Input)?;
                if !line.trim().is_empty() {
                    all.push(hash(line.trim(), store_dir)?);
                }
            }
        } else {
            all.push(hash(text, store_dir)?);
        }
    }
    Ok(all)
}

/// `/nix/store/<hash>-name`, `<hash>-name`, `<hash>`, or a symlink to the first, such as `./result`; what lies below a
/// path counts as it.
fn hash(text: &str, store_dir: &StoreDir) -> Result<StorePathHash, CommandError> {
    let is_link = text.contains('/') && !text.starts_with(store_dir.as_str());
    let target = is_link.then(|| std::fs::canonicalize(text).ok()).flatten();
    let target = target.as_deref().and_then(std::path::Path::to_str);
    let text = target.unwrap_or(text);
    let name =
        text.strip_prefix(store_dir.as_str()).map_or(text, |rest| rest.trim_start_matches('/'));
    let digits = name.split(['-', '/']).next().unwrap_or(name);
    StorePathHash::parse(digits).ok_or_else(|| {
        CommandError::Usage(format!("{text:?} is no path of {store_dir}, and no hash of one"))
    })
}
