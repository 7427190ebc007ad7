//! `snowbank hook`

use std::io::Write as _;
use std::panic::catch_unwind;

use clap::Args;

use super::client::{RootsArguments, SpoolArguments};
use crate::client::hook::{self, Built};
use crate::client::spool::Spool;

/// Queues what Nix has just built; the program for Nix's post-build-hook.
///
/// Notes OUT_PATHS and DRV_PATH in the queue, durably, and is done: it talks to no server, and ends with
/// 0 whatever is wrong, because Nix builds nothing more after a hook that failed. What is wrong it says
/// in one line on standard error. `snowbank agent` does the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  post-build-hook = /run/current-system/sw/bin/snowbank-hook      (in nix.conf)
  ln -s snowbank /usr/local/bin/snowbank-hook
  OUT_PATHS=$(readlink -f result) snowbank hook --spool /tmp/spool

Nix calls its hook without arguments, so a symlink to snowbank with the name snowbank-hook is this command.
What is queued is kept from the collector by a root until the server has acknowledged it.")]
pub(super) struct HookArguments {
    #[command(flatten)]
    spool: SpoolArguments,

    #[command(flatten)]
    roots: RootsArguments,
}

/// Never fails, see there.
pub(super) fn run(arguments: &HookArguments) {
    let said = catch_unwind(|| {
        let built = match Built::from_environment(&|name| std::env::var_os(name)) {
            Ok(built) => built,
            Err(error) => return Some(error.to_string()),
        };
        let spool = Spool::new(arguments.spool.directory());
        match hook::run(built, &spool, &arguments.roots.directory()) {
            Ok(warning) => warning,
            Err(error) => Some(error.to_string()),
        }
    });
    if let Ok(Some(line)) = said {
        complain(&line);
    }
}

/// One line, to whoever listens.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "snowbank hook: {}", line.replace('\n', " "));
}
