//! `snowbank agent`

use clap::Args;

use super::client::{
    RootsArguments, ServerArguments, SpoolArguments, StoreArguments, TransferArguments,
};
use super::{CommandError, logging};
use crate::app::agent::{self, AgentParts};
use crate::client::agent::AgentSettings;
use crate::client::push::PushSettings;
use crate::client::retry::Patience;
use crate::client::spool::Spool;
use crate::http::listen::ListenAddress;

/// How long a single request is asked again before the agent turns to other entries.
const REQUEST_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Pushes what hooks have queued, for ever.
///
/// Drops nothing: what the server cannot take now is tried again, after 1 s to 5 min or when the server
/// says; what can never go well is parked with its reason, for `snowbank queue`, while the others go on.
/// Several agents may work on one queue.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank agent --to https://cache.example.org --token-file /run/keys/push
  snowbank agent --listen 127.0.0.1:9100
  snowbank agent --spool /var/spool/snowbank --include-drv

With --listen it answers /metrics for Prometheus and /health. It tells systemd that it is ready, what it
does, and that it is alive (Type=notify, WatchdogSec=). SIGTERM leaves an upload where it can be gone on with, and
ends with 0.")]
pub(super) struct AgentArguments {
    #[command(flatten)]
    server: ServerArguments,

    #[command(flatten)]
    store: StoreArguments,

    #[command(flatten)]
    transfer: TransferArguments,

    #[command(flatten)]
    spool: SpoolArguments,

    #[command(flatten)]
    roots: RootsArguments,

    /// Where to answer /metrics and /health; repeatable [example: --listen 127.0.0.1:9100]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<ListenAddress>,

    /// Push the derivations too, with all that they were built from
    #[arg(long)]
    include_drv: bool,
}

pub(super) fn run(arguments: &AgentArguments) -> Result<(), CommandError> {
    logging::start(&logging::of_service());
    let push = PushSettings {
        level: arguments.transfer.level,
        jobs: arguments.transfer.jobs,
        all: arguments.transfer.all,
        patience: Patience { retry_for: Some(REQUEST_PATIENCE) },
        daemon_socket: arguments.store.daemon_socket(),
        ..PushSettings::default()
    };
    let roots = arguments.roots.directory();
    let parts = AgentParts {
        spool: Spool::new(arguments.spool.directory()),
        remote: arguments.server.remote(arguments.transfer.jobs)?,
        paths: arguments.store.paths()?,
        settings: AgentSettings { push, include_drv: arguments.include_drv, roots },
        listen: arguments.listen.clone(),
    };
    Ok(agent::run(parts)?)
}
