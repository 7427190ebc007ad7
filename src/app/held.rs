//! What snapshots keep of what a collection would free.

use super::datasets::dataset_of;
use crate::bank::{Bank, BankError, bytes_on_disk};
use crate::config::{CacheConfig, Config};
use crate::keep::collect::Plan;
use crate::keep::collect::held::{Keeping, count};
use crate::zfs::{Zfs, ZfsError};

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// ZFS does not say.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// A snapshot cannot be seen.
    #[error(transparent)]
    Bank(#[from] BankError),
}

/// The snapshots that keep something of what would go, oldest first, and how many bytes they keep together. Nothing
/// where the cache is no dataset. Blocks, and has ZFS mount snapshots.
pub fn held(
    config: &Config,
    cache: &CacheConfig,
    bank: &Bank,
    plan: &Plan<'_>,
) -> Result<(Vec<Keeping>, u64), HeldError> {
    let Some(dataset) = dataset_of(config, cache) else { return Ok((Vec::new(), 0)) };
    let mut snapshots = Vec::new();
    for info in Zfs::find()?.snapshots(&dataset, &["clones"])? {
        // One that went meanwhile keeps nothing.
        let Some(then) = bank.at_snapshot(info.snapshot.name())? else { continue };
        let clones = info.properties.into_iter().next().flatten();
        let name = info.snapshot.name().to_string();
        let directory = then.root().to_path_buf();
        snapshots.push(Keeping::new(name, info.creation, (info.holds, clones), directory));
    }
    let strays = plan.strays.files.iter().filter_map(|file| {
        let name = file.strip_prefix(bank.root()).ok()?;
        Some((name.to_path_buf(), bytes_on_disk(file)))
    });
    let kept = count(&mut snapshots, plan.files().chain(strays));
    snapshots.retain(|snapshot| snapshot.bytes > 0);
    Ok((snapshots, kept))
}
