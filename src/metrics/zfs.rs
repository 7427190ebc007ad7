//! What is known of ZFS, and of the disks under the caches. Set in the background, never by a scrape.
//!
//! Labels are names of datasets and pools that the configured caches lie on, and of those caches: what
//! is not there any more is taken out. What stays is never missing meanwhile, so that no scrape falls
//! into a gap.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// All of them.
pub struct ZfsMetrics {
    dataset_used: IntGaugeVec,
    dataset_logical_used: IntGaugeVec,
    dataset_available: IntGaugeVec,
    dataset_quota: IntGaugeVec,
    dataset_compress_ratio: GaugeVec,
    dataset_used_by_snapshots: IntGaugeVec,
    pool_size: IntGaugeVec,
    pool_allocated: IntGaugeVec,
    pool_free: IntGaugeVec,
    pool_fragmentation: GaugeVec,
    pool_health: IntGaugeVec,
    pool_errors: IntGaugeVec,
    pool_data_errors: IntGaugeVec,
    pool_scrub_age: IntGaugeVec,
    pool_scrub_errors: IntGaugeVec,
    pool_clone_saved: IntGaugeVec,
    /// Bytes of the ARC.
    pub arc_size: IntGauge,
    arc_hits: IntCounter,
    arc_misses: IntCounter,
    /// Looks at ZFS that failed, by whole looks.
    pub failures: IntCounter,
    /// When ZFS was last looked at with success, in seconds since 1970.
    pub looked_at: Gauge,
    cache_well: IntGaugeVec,
    /// Bytes of NARs whose blocks are shared with another cache.
    pub cloned_bytes: IntCounter,
    shown_datasets: Mutex<BTreeSet<String>>,
    shown_pools: Mutex<BTreeSet<String>>,
}

/// What `snowbank_zfs_pool_errors` counts.
const ERROR_KINDS: [&str; 3] = ["read", "write", "checksum"];

/// The states that a pool can have, as `zpool list` has them.
pub const POOL_STATES: [&str; 7] =
    ["ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "UNAVAIL", "REMOVED", "SUSPENDED"];

/// What is known of a dataset. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatasetFigures {
    /// With snapshots and descendants.
    pub used: u64,
    /// The same before compression.
    pub logical_used: u64,
    /// What can still be written.
    pub available: u64,
    /// 0 where there is none.
    pub quota: u64,
    /// Logical to physical.
    pub compress_ratio: f64,
    /// What would be free if all snapshots went.
    pub used_by_snapshots: u64,
}

/// What is known of a pool. Sizes are in bytes.
#[derive(Clone, Debug, Default)]
pub struct PoolFigures {
    /// Of all its vdevs.
    pub size: u64,
    /// What is allocated.
    pub allocated: u64,
    /// What is not; not all of it can be used.
    pub free: u64,
    /// From 0 to 1.
    pub fragmentation: f64,
    /// One of [`POOL_STATES`].
    pub health: &'static str,
    /// Of reading, writing and checksums, over all its vdevs; `None`, here and below, where its status is
    /// not known.
    pub errors: Option<[u64; 3]>,
    /// Files that cannot be read whole.
    pub data_errors: Option<u64>,
    /// Seconds since the last scrub ended; `None` where there was none.
    pub scrub_age: Option<u64>,
    /// Errors that it found.
    pub scrub_errors: Option<u64>,
    /// Bytes that are there once instead of several times.
    pub clone_saved: Option<u64>,
}

impl ZfsMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_dataset = |name: &str, help: &str| {
            let name = format!("snowbank_zfs_dataset_{name}");
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &["dataset"]))
        };
        let of_pool = |name: &str, help: &str| {
            let name = format!("snowbank_zfs_pool_{name}");
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &["pool"]))
        };
        let ratio = |name: &str, help: &str, label: &str| {
            registered(registry, GaugeVec::new(Opts::new(name, help), &[label]))
        };
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help));
        Ok(Self {
            dataset_used: of_dataset("used_bytes", "Bytes used, with snapshots and descendants.")?,
            dataset_logical_used: of_dataset("logical_used_bytes", "The same before compression.")?,
            dataset_available: of_dataset("available_bytes", "Bytes that can still be written.")?,
            dataset_quota: of_dataset("quota_bytes", "The quota; 0 is none.")?,
            dataset_compress_ratio: ratio(
                "snowbank_zfs_dataset_compress_ratio",
                "Bytes before compression to bytes on disk.",
                "dataset",
            )?,
            dataset_used_by_snapshots: of_dataset(
                "used_by_snapshots_bytes",
                "Bytes that only snapshots hold.",
            )?,
            pool_size: of_pool("size_bytes", "Bytes of all vdevs.")?,
            pool_allocated: of_pool("allocated_bytes", "Bytes that are allocated.")?,
            pool_free: of_pool("free_bytes", "Bytes that are not; not all of them can be used.")?,
            pool_fragmentation: ratio(
                "snowbank_zfs_pool_fragmentation_ratio",
                "Fragmentation of the free space, from 0 to 1.",
                "pool",
            )?,
            pool_health: registered(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "snowbank_zfs_pool_health",
                        "1 for the state that the pool is in, 0 for the others.",
                    ),
                    &["pool", "state"],
                ),
            )?,
            pool_errors: registered(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "snowbank_zfs_pool_errors",
                        "Errors of its vdevs since they were last cleared.",
                    ),
                    &["pool", "kind"],
                ),
            )?,
            pool_data_errors: of_pool("data_errors", "Files that cannot be read whole.")?,
            pool_scrub_age: of_pool(
                "scrub_age_seconds",
                "Seconds since the last scrub ended; missing where there was none.",
            )?,
            pool_scrub_errors: of_pool("scrub_errors", "Errors that the last scrub found.")?,
            pool_clone_saved: of_pool(
                "block_cloning_saved_bytes",
                "Bytes that are there once instead of several times, by block cloning.",
            )?,
            arc_size: registered(
                registry,
                IntGauge::new("snowbank_zfs_arc_size_bytes", "Bytes of memory in the ARC."),
            )?,
            arc_hits: counter("snowbank_zfs_arc_hits_total", "Reads that the ARC answered.")?,
            arc_misses: counter("snowbank_zfs_arc_misses_total", "Reads that went to the disks.")?,
            failures: counter("snowbank_zfs_look_failures_total", "Looks at ZFS that failed.")?,
            looked_at: registered(
                registry,
                Gauge::new(
                    "snowbank_zfs_last_look_timestamp_seconds",
                    "When ZFS was last looked at with success.",
                ),
            )?,
            cache_well: registered(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "snowbank_cache_well",
                        "1 while the cache can be read and, where it takes pushes, written.",
                    ),
                    &["cache"],
                ),
            )?,
            cloned_bytes: counter(
                "snowbank_cloned_bytes_total",
                "Bytes of NARs that were pushed and share their blocks with another cache.",
            )?,
            shown_datasets: Mutex::default(),
            shown_pools: Mutex::default(),
        })
    }

    /// Replaces what is known of datasets.
    pub fn datasets<'a>(&self, all: impl Iterator<Item = (&'a str, DatasetFigures)>) {
        let mut names = BTreeSet::new();
        for (name, figures) in all {
            names.insert(name.to_owned());
            set(&self.dataset_used, &[name], figures.used);
            set(&self.dataset_logical_used, &[name], figures.logical_used);
            set(&self.dataset_available, &[name], figures.available);
            set(&self.dataset_quota, &[name], figures.quota);
            set(&self.dataset_used_by_snapshots, &[name], figures.used_by_snapshots);
            self.dataset_compress_ratio.with_label_values(&[name]).set(figures.compress_ratio);
        }
        for gone in gone(&self.shown_datasets, names) {
            for gauges in [
                &self.dataset_used,
                &self.dataset_logical_used,
                &self.dataset_available,
                &self.dataset_quota,
                &self.dataset_used_by_snapshots,
            ] {
                forget(gauges, &[&gone]);
            }
            forget(&self.dataset_compress_ratio, &[&gone]);
        }
    }

    /// Replaces what is known of pools.
    pub fn pools<'a>(&self, all: impl Iterator<Item = (&'a str, PoolFigures)>) {
        let mut names = BTreeSet::new();
        for (name, figures) in all {
            names.insert(name.to_owned());
            set(&self.pool_size, &[name], figures.size);
            set(&self.pool_allocated, &[name], figures.allocated);
            set(&self.pool_free, &[name], figures.free);
            self.pool_fragmentation.with_label_values(&[name]).set(figures.fragmentation);
            for state in POOL_STATES {
                set(&self.pool_health, &[name, state], u64::from(state == figures.health));
            }
            for (index, kind) in ERROR_KINDS.iter().enumerate() {
                let errors = figures.errors.map(|errors| errors[index]);
                set_or_forget(&self.pool_errors, &[name, kind], errors);
            }
            set_or_forget(&self.pool_data_errors, &[name], figures.data_errors);
            set_or_forget(&self.pool_scrub_errors, &[name], figures.scrub_errors);
            set_or_forget(&self.pool_scrub_age, &[name], figures.scrub_age);
            set_or_forget(&self.pool_clone_saved, &[name], figures.clone_saved);
        }
        for gone in gone(&self.shown_pools, names) {
            for gauges in [
                &self.pool_size,
                &self.pool_allocated,
                &self.pool_free,
                &self.pool_data_errors,
                &self.pool_scrub_age,
                &self.pool_scrub_errors,
                &self.pool_clone_saved,
            ] {
                forget(gauges, &[&gone]);
            }
            forget(&self.pool_fragmentation, &[&gone]);
            POOL_STATES.iter().for_each(|state| forget(&self.pool_health, &[&gone, state]));
            ERROR_KINDS.iter().for_each(|kind| forget(&self.pool_errors, &[&gone, kind]));
        }
    }

    /// Notes what the ARC counts since the module was loaded.
    pub fn arc(&self, hits: u64, misses: u64) {
        for (counter, now) in [(&self.arc_hits, hits), (&self.arc_misses, misses)] {
            // Less than before: the module was loaded anew, and counts from 0.
            let before = counter.get();
            if now < before {
                counter.reset();
            }
            counter.inc_by(now - counter.get());
        }
    }

    /// Notes whether a cache is as it should be.
    pub fn cache(&self, name: &str, well: bool) {
        set(&self.cache_well, &[name], u64::from(well));
    }
}

fn set(gauges: &IntGaugeVec, labels: &[&str], value: u64) {
    gauges.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn set_or_forget(gauges: &IntGaugeVec, labels: &[&str], value: Option<u64>) {
    match value {
        Some(value) => set(gauges, labels, value),
        None => forget(gauges, labels),
    }
}

/// Takes a series out; one that is not there is out already.
fn forget<B: prometheus::core::MetricVecBuilder>(
    vec: &prometheus::core::MetricVec<B>,
    labels: &[&str],
) {
    let _ = vec.remove_label_values(labels);
}

/// What was shown and is not among `names`, which are shown from now on.
fn gone(shown: &Mutex<BTreeSet<String>>, names: BTreeSet<String>) -> Vec<String> {
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = shown.difference(&names).cloned().collect();
    *shown = names;
    gone
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> Result<M, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn what_is_gone_is_no_series_any_more() {
        let registry = Registry::new();
        let metrics = ZfsMetrics::new(&registry).unwrap();
        let figures = DatasetFigures { used: 7, ..DatasetFigures::default() };
        metrics.datasets([("tank/a", figures), ("tank/b", figures)].into_iter());
        let pool = PoolFigures { health: "ONLINE", ..PoolFigures::default() };
        metrics.pools([("tank", pool)].into_iter());
        let before = text(&registry);
        assert!(
            before.contains("snowbank_zfs_dataset_used_bytes{dataset=\"tank/b\"} 7"),
            "{before}"
        );
        assert!(before.contains("snowbank_zfs_pool_health{pool=\"tank\",state=\"ONLINE\"} 1"));
        assert!(!before.contains("snowbank_zfs_pool_scrub_age_seconds{"), "there was no scrub");
        metrics.datasets([("tank/a", figures)].into_iter());
        metrics.pools(std::iter::empty());
        let after = text(&registry);
        assert!(after.contains("{dataset=\"tank/a\"} 7") && !after.contains("tank/b"), "{after}");
        assert!(!after.contains("pool=\"tank\""), "{after}");
    }

    #[test]
    fn the_counts_of_the_arc_go_on_and_begin_anew_with_the_module() {
        let registry = Registry::new();
        let metrics = ZfsMetrics::new(&registry).unwrap();
        for (hits, shown) in [(10, 10), (15, 15), (3, 3)] {
            metrics.arc(hits, 0);
            assert_eq!(metrics.arc_hits.get(), shown);
        }
    }
}
