//! What ZFS says of the datasets and pools that caches lie on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::metrics::zfs::{DatasetFigures, PoolFigures, ZfsMetrics};
use crate::zfs::arc::ArcStats;
use crate::zfs::dataset::Dataset;
use crate::zfs::mounts::Mounts;
use crate::zfs::pool::{Pool, PoolStatus, ScanState};
use crate::zfs::{DatasetName, PoolName, Zfs, ZfsError};

/// So many datasets are asked for one by one; of more, all that are beside them are listed at once.
const ONE_BY_ONE: usize = 4;

/// What was found at one look.
#[derive(Debug, Default)]
pub struct Report {
    /// Why nothing, or not all, could be found out; one line.
    pub failure: Option<String>,
    /// The dataset that each cache lies on, by the name of the cache.
    pub caches: BTreeMap<String, DatasetName>,
    /// Those datasets.
    pub datasets: BTreeMap<DatasetName, Dataset>,
    /// Their pools.
    pub pools: BTreeMap<PoolName, PoolReport>,
    /// The cache of ZFS.
    pub arc: Option<ArcStats>,
}

/// What is known of a pool.
#[derive(Debug)]
pub struct PoolReport {
    /// As it is listed.
    pub pool: Pool,
    /// Device by device; `None` where it could not be found out.
    pub status: Option<PoolStatus>,
    /// Whether a copy of a file within it shares the blocks.
    pub clones_blocks: bool,
}

/// A cache that may lie on ZFS.
#[derive(Clone, Debug)]
pub struct Lying {
    /// Its name.
    pub cache: String,
    /// Its bank.
    pub directory: PathBuf,
    /// The dataset that it must be, where the configuration says so.
    pub dataset: Option<DatasetName>,
}

/// The dataset that each cache lies on, mounted or not.
pub fn datasets_of(caches: &[Lying]) -> BTreeMap<String, DatasetName> {
    let mounts = Mounts::read().ok();
    let found = |lying: &Lying| {
        let dataset = lying.dataset.clone().or_else(|| {
            let directory = real_directory(&lying.directory)?;
            mounts.as_ref()?.covering(&directory)?.dataset()
        });
        dataset.map(|dataset| (lying.cache.clone(), dataset))
    };
    caches.iter().filter_map(found).collect()
}

/// Without symbolic links, as far as it exists.
fn real_directory(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find_map(|existing| std::fs::canonicalize(existing).ok())
}

impl Report {
    /// Asks ZFS. Blocks, within the deadlines of the commands. Where one thing cannot be found out the
    /// rest is there all the same.
    pub fn make(zfs: &Zfs, caches: BTreeMap<String, DatasetName>) -> Self {
        let mut report = Self { caches, ..Self::default() };
        let asked = [
            report.ask_datasets(zfs),
            report.ask_pools(zfs),
            ArcStats::read().map(|arc| report.arc = arc).map_err(|error| error.to_string()),
        ];
        report.failure = asked.into_iter().find_map(Result::err);
        report
    }

    fn ask_datasets(&mut self, zfs: &Zfs) -> Result<(), String> {
        let mut by_parent: BTreeMap<Option<DatasetName>, BTreeSet<&DatasetName>> = BTreeMap::new();
        for name in self.caches.values() {
            by_parent.entry(name.parent()).or_default().insert(name);
        }
        let ask = || -> Result<Vec<Dataset>, ZfsError> {
            let mut found = Vec::new();
            for (parent, names) in &by_parent {
                match parent {
                    Some(parent) if names.len() > ONE_BY_ONE => {
                        let all = zfs.list(parent, true)?.into_iter();
                        found.extend(all.filter(|dataset| names.contains(&dataset.name)));
                    }
                    _ => {
                        for name in names {
                            found.extend(zfs.find_dataset(name)?);
                        }
                    }
                }
            }
            Ok(found)
        };
        let found = ask().map_err(|error| error.to_string())?;
        self.datasets = found.into_iter().map(|found| (found.name.clone(), found)).collect();
        Ok(())
    }

    fn ask_pools(&mut self, zfs: &Zfs) -> Result<(), String> {
        let ours: BTreeSet<PoolName> = self.caches.values().map(DatasetName::pool).collect();
        let mut failure = None;
        let pools = zfs.pools().map_err(|error| error.to_string())?;
        for pool in pools.into_iter().filter(|pool| ours.contains(&pool.name)) {
            let mut known = |error: ZfsError| failure = Some(error.to_string());
            let status = zfs.status(&pool.name).map_err(&mut known).ok();
            let clones_blocks = clones_blocks(zfs, &pool).map_err(&mut known).unwrap_or(false);
            self.pools.insert(pool.name.clone(), PoolReport { pool, status, clones_blocks });
        }
        failure.map_or(Ok(()), Err)
    }

    /// The dataset of a cache, with its pool.
    pub fn of_cache(&self, cache: &str) -> Option<(&Dataset, Option<&PoolReport>)> {
        let name = self.caches.get(cache)?;
        Some((self.datasets.get(name)?, self.pools.get(&name.pool())))
    }

    /// Whether a pool is known to give nothing.
    pub fn gives_nothing(&self, pool: &PoolName) -> bool {
        self.pools.get(pool).is_some_and(|found| !found.pool.health.answers())
    }

    /// Whether two caches lie on one pool that clones blocks.
    pub fn share_blocks(&self, one: &str, other: &str) -> bool {
        let pool = |cache: &str| self.caches.get(cache).map(DatasetName::pool);
        match (pool(one), pool(other)) {
            (Some(one), Some(other)) if one == other => {
                self.pools.get(&one).is_some_and(|found| found.clones_blocks)
            }
            _ => false,
        }
    }

    /// Shows all of it to Prometheus; `now` is in seconds since 1970.
    pub fn show(&self, metrics: &ZfsMetrics, now: i64) {
        metrics.datasets(self.datasets.iter().map(|(name, dataset)| {
            let figures = DatasetFigures {
                used: dataset.used,
                logical_used: dataset.logical_used,
                available: dataset.available,
                quota: dataset.quota.unwrap_or(0),
                compress_ratio: dataset.compress_ratio.as_f64(),
                used_by_snapshots: dataset.used_by_snapshots,
            };
            (name.as_str(), figures)
        }));
        metrics.pools(self.pools.iter().map(|(name, found)| (name.as_str(), found.figures(now))));
        if let Some(arc) = &self.arc {
            metrics.arc_size.set(i64::try_from(arc.size).unwrap_or(i64::MAX));
            metrics.arc(arc.hits, arc.misses);
        }
        match &self.failure {
            #[expect(clippy::cast_precision_loss, reason = "exact for the next 280 million years")]
            None => metrics.looked_at.set(now as f64),
            Some(_) => metrics.failures.inc(),
        }
    }
}

/// Whether a pool clones blocks: its version can, its format has it, and the module was not told not to,
/// which is the default of 2.2, because it lost data there.
fn clones_blocks(zfs: &Zfs, pool: &Pool) -> Result<bool, ZfsError> {
    let allowed = || std::fs::read_to_string("/sys/module/zfs/parameters/zfs_bclone_enabled");
    if pool.clones.is_none() || !allowed().is_ok_and(|value| value.trim() == "1") {
        return Ok(false);
    }
    let features = zfs.features(&pool.name)?;
    let feature = features.iter().find(|feature| feature.name == "block_cloning");
    Ok(feature.is_some_and(|feature| feature.state != "disabled"))
}

impl PoolReport {
    /// Seconds since the last scrub or resilver ended; `None` where none has.
    pub fn scrub_age(&self, now: i64) -> Option<i64> {
        let scan =
            self.status.as_ref()?.scan.as_ref().filter(|scan| scan.state == ScanState::Finished)?;
        Some(now.saturating_sub(i64::try_from(scan.end?).ok()?).max(0))
    }

    fn figures(&self, now: i64) -> PoolFigures {
        let Self { pool, status, .. } = self;
        let status = status.as_ref();
        let errors = status.map(PoolStatus::errors);
        let scrub_age = self.scrub_age(now).map(i64::unsigned_abs);
        PoolFigures {
            size: pool.size,
            allocated: pool.allocated,
            free: pool.free,
            #[expect(clippy::cast_precision_loss, reason = "0 to 100")]
            fragmentation: pool.fragmentation_percent.unwrap_or(0) as f64 / 100.0,
            health: pool.health.as_str(),
            errors: errors.map(|(read, write, checksum)| [read, write, checksum]),
            data_errors: status.map(|status| status.error_count.unwrap_or(0)),
            scrub_age,
            scrub_errors: status.map(|status| status.scan.as_ref().map_or(0, |scan| scan.errors)),
            clone_saved: pool.clones.as_ref().map(|clones| clones.saved),
        }
    }
}
