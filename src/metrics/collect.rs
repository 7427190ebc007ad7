//! Metrics of collecting.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// All of them, by cache.
pub struct CollectMetrics {
    paths: IntCounterVec,
    bytes: IntCounterVec,
    failures: IntCounterVec,
    runs: IntCounterVec,
    durations: HistogramVec,
    last: IntGaugeVec,
}

/// From a cache of a few thousand paths to one of millions.
const BUCKETS: [f64; 8] = [0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0];

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
            runs: register!(
                registry,
                IntCounterVec::new(
                    Opts::new("snowbank_collections_total", "Collections, by how they ended."),
                    &["cache", "result"],
                )
            ),
            durations: register!(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "snowbank_collection_duration_seconds",
                        "How long collections took that came to their end.",
                    )
                    .buckets(BUCKETS.to_vec()),
                    &["cache"],
                )
            ),
            failures: counter(
                "snowbank_collect_failures_total",
                "Collections that failed, and files that could not be removed.",
            )?,
            last,
        })
    }

    /// Counts a collection that began at `now`, in seconds since 1970, and came to its end after `took`.
    pub fn collected(
        &self,
        cache: &str,
        (paths, bytes, failed): (u64, u64, u64),
        now: i64,
        took: Duration,
    ) {
        self.paths.with_label_values(&[cache]).inc_by(paths);
        self.bytes.with_label_values(&[cache]).inc_by(bytes);
        self.failures.with_label_values(&[cache]).inc_by(failed);
        self.last.with_label_values(&[cache]).set(now);
        self.runs.with_label_values(&[cache, "ok"]).inc();
        self.durations.with_label_values(&[cache]).observe(took.as_secs_f64());
    }

    /// Counts one that did not.
    pub fn failed(&self, cache: &str) {
        self.runs.with_label_values(&[cache, "failed"]).inc();
        self.failures.with_label_values(&[cache]).inc();
    }
}
