//! Opening the banks: what has to be mounted where, by the configuration and by what was there before.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::{AppError, cache_info};
use crate::bank::{Bank, BankError, Mounting, is_mount_point, publish::commit::Recovered};
use crate::config::{CacheConfig, Config};
use crate::index::state::StateDb;
use crate::nix::store_path::StoreDir;

/// The bank of a cache, ready where it is there. One that is away is answered with 503 until it is
/// mounted.
pub(super) fn open(
    config: &Config,
    cache: &CacheConfig,
    store_dir: &StoreDir,
    state: Option<&StateDb>,
) -> Result<Arc<Bank>, AppError> {
    let mounting = mounting(config, cache, state);
    let info = cache_info(cache, store_dir);
    let bank = Bank::at(cache.directory.clone(), info, mounting, cache.is_written_to());
    match bank.make_ready() {
        Ok(recovered) => {
            let Recovered { commits, removed } = recovered.unwrap_or_default();
            if commits > 0 || removed > 0 {
                let cache = &cache.name;
                tracing::info!(cache, commits, removed, "finished what was left unfinished");
            }
            remember(&cache.directory, state);
        }
        Err(error @ (BankError::Away(_) | BankError::NotMounted { .. })) => {
            tracing::error!(cache = cache.name, "{error}; it is 503 until then");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Arc::new(bank))
}

/// What must be mounted at the directory of a cache.
fn mounting(config: &Config, cache: &CacheConfig, state: Option<&StateDb>) -> Mounting {
    if let Some(dataset) = cache.dataset(&config.zfs) {
        return Mounting::Dataset(dataset);
    }
    match state.map(|state| state.place(&cache.directory)) {
        Some(Ok(Some(true))) => Mounting::Separate,
        Some(Ok(_)) | None => Mounting::Any,
        Some(Err(error)) => {
            tracing::warn!(cache = cache.name, "what was mounted here is not known: {error}");
            Mounting::Any
        }
    }
}

/// Notes that there is a bank, and whether it is on a file system of its own.
fn remember(directory: &Path, state: Option<&StateDb>) {
    let Some(state) = state else { return };
    let now = Timestamp::now().as_second();
    let noted = match is_mount_point(directory) {
        Ok(mounted) => state.note_place(directory, mounted, now).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = noted {
        tracing::warn!("where {} lies is not remembered: {why}", directory.display());
    }
}
