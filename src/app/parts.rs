//! The banks of other nodes that a cache serves as parts of itself.

use std::path::PathBuf;
use std::sync::Arc;

use super::cache_info;
use crate::bank::{Bank, BankError};
use crate::config::CacheConfig;
use crate::index::places::KnownPlaces;
use crate::nix::store_path::StoreDir;
use crate::source::{BankSource, Source};

/// The parts of a cache, in their order; whether they are there is looked at later.
pub(super) fn open(
    cache: &CacheConfig,
    store_dir: &StoreDir,
    places: &Arc<KnownPlaces>,
) -> Result<Vec<Arc<Source>>, BankError> {
    let part = |(index, directory): (usize, &PathBuf)| {
        let bank = Bank::of_others(directory.clone(), cache_info(cache, store_dir));
        // As with the own bank: a directory for another store is a mistake, and one to be seen at once.
        if let Err(error @ BankError::OtherStoreDir { .. }) = bank.check_store_dir(store_dir) {
            return Err(error);
        }
        let source = BankSource::of_part(bank, store_dir.clone(), index + 1, Arc::clone(places));
        Ok(Arc::new(Source::Bank(source)))
    };
    cache.parts.iter().enumerate().map(part).collect()
}
