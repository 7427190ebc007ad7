//! `--config` and `--data-dir` of the commands that look at what a server has.

use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use crate::config::{self, Config, DEFAULT_CACHE, Environment, Overrides};

/// Which server's data; as `snowbank serve` takes them.
#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    /// The server's configuration [environment: SNOWBANK_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The server's data directory [environment: SNOWBANK_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl PlaceArguments {
    /// The configuration as the server sees it.
    pub(super) fn load(&self) -> Result<Config, CommandError> {
        let overrides = Overrides {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            listen: Vec::new(),
            store: None,
            // A directory that was removed under us: relative paths then fail where they are used.
            working_dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
        };
        let lookup = |name: &str| std::env::var_os(name);
        let is_root = rustix::process::geteuid().is_root();
        Ok(config::load(&overrides, &Environment { lookup: &lookup, is_root })?)
    }
}

/// A cache of that server.
#[derive(Debug, Args)]
pub(super) struct OfCache {
    /// The cache
    #[arg(long, value_name = "CACHE", default_value = DEFAULT_CACHE)]
    pub(super) cache: String,
    #[command(flatten)]
    pub(super) place: PlaceArguments,
}
