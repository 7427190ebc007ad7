//! Metrics of collecting.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// All of them, by cache.
pub struct CollectMetrics {
    paths: IntCounterVec,
    bytes: IntCounterVec,
    failures: IntCounterVec,
    last: IntGaugeVec,
}

impl CollectMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntCounterVec::new(Opts::new(name, help), &["cache"])
            ))
        };
        let last = register!(
            registry,
            IntGaugeVec::new(
                Opts::new(
                    "snowbank_collected_timestamp_seconds",
                    "When a cache was last collected to the end.",
                ),
                &["cache"],
            )
        );
        Ok(Self {
            paths: counter("snowbank_collected_paths_total", "Paths that were collected.")?,
            bytes: counter(
                "snowbank_collected_bytes_total",
                "Bytes on disk that collecting has freed, as far as no snapshot holds them.",
            )?,
            failures: counter(
                "snowbank_collect_failures_total",
                "Collections that failed, and files that could not be removed.",
            )?,
            last,
        })
    }

    /// Counts a collection that came to its end at `now`, in seconds since 1970.
    pub fn collected(&self, cache: &str, paths: u64, bytes: u64, failed: u64, now: i64) {
        self.paths.with_label_values(&[cache]).inc_by(paths);
        self.bytes.with_label_values(&[cache]).inc_by(bytes);
        self.failures.with_label_values(&[cache]).inc_by(failed);
        self.last.with_label_values(&[cache]).set(now);
    }

    /// Counts one that did not.
    pub fn failed(&self, cache: &str) {
        self.failures.with_label_values(&[cache]).inc();
    }
}
