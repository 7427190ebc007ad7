//! Metrics of what is pushed.

use std::time::Instant;

use jiff::Timestamp;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// What is done with a push, each with its own time; the label `stage`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// A NAR is received, decoded, hashed and compressed.
    Receive,
    /// It is made durable, and waits for what is said of it.
    Keep,
    /// Paths are made visible.
    Publish,
}

const STAGES: [(Stage, &str); 3] =
    [(Stage::Receive, "receive"), (Stage::Keep, "keep"), (Stage::Publish, "publish")];

const BUCKETS: [f64; 12] = [5e-4, 1e-3, 25e-4, 5e-3, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0];

/// All of them. The names of caches come from the configuration.
pub struct IngestMetrics {
    stages: [Histogram; STAGES.len()],
    paths: IntCounterVec,
    bytes: IntCounterVec,
    all_paths: IntCounter,
    all_bytes: IntCounter,
    last: IntGaugeVec,
    waiting: IntGaugeVec,
}

/// Those of one cache.
pub struct PushMetrics {
    cache: String,
    paths: IntCounter,
    bytes: IntCounter,
    all_paths: IntCounter,
    all_bytes: IntCounter,
    last: IntGaugeVec,
    waiting: IntGauge,
}

impl IngestMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntCounterVec::new(Opts::new(name, help), &["cache"])
            ))
        };
        let options = HistogramOpts::new(
            "snowbank_ingest_stage_duration_seconds",
            "How long a step of taking a push took, by step.",
        );
        let stages =
            register!(registry, HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["stage"]));
        Ok(Self {
            stages: STAGES.map(|(_, label)| stages.with_label_values(&[label])),
            // Of all caches together, for the history; Prometheus adds up itself.
            all_paths: IntCounter::new("all_paths", "Paths.")?,
            all_bytes: IntCounter::new("all_bytes", "Bytes.")?,
            paths: counters(
                "snowbank_pushed_paths_total",
                "Paths that were pushed and published.",
            )?,
            bytes: counters(
                "snowbank_pushed_nar_bytes_total",
                "Bytes of their NARs, uncompressed.",
            )?,
            waiting: register!(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "snowbank_waiting_nars",
                        "NARs that were pushed and wait for what is said of them; counted every ten minutes.",
                    ),
                    &["cache"],
                )
            ),
            last: register!(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "snowbank_last_push_timestamp_seconds",
                        "When a path was last pushed and published; not there before the first since the start.",
                    ),
                    &["cache"],
                )
            ),
        })
    }

    /// Those of a cache that takes pushes.
    pub fn of(&self, cache: &str) -> PushMetrics {
        PushMetrics {
            cache: cache.into(),
            paths: self.paths.with_label_values(&[cache]),
            bytes: self.bytes.with_label_values(&[cache]),
            all_paths: self.all_paths.clone(),
            all_bytes: self.all_bytes.clone(),
            last: self.last.clone(),
            waiting: self.waiting.with_label_values(&[cache]),
        }
    }

    /// How many paths were pushed to all caches, and the bytes of their NARs.
    pub(super) fn pushed(&self) -> (u64, u64) {
        (self.all_paths.get(), self.all_bytes.get())
    }

    /// Notes how long a step took that began at `began`, and went well.
    pub fn took(&self, stage: Stage, began: Instant) {
        self.stages[stage as usize].observe(began.elapsed().as_secs_f64());
    }
}

impl PushMetrics {
    /// Counts a path that was published, and the bytes of its NAR.
    pub fn pushed(&self, nar_bytes: u64) {
        self.paths.inc();
        self.bytes.inc_by(nar_bytes);
        self.all_paths.inc();
        self.all_bytes.inc_by(nar_bytes);
        self.last.with_label_values(&[&self.cache]).set(Timestamp::now().as_second());
    }

    /// Notes how many NARs wait.
    pub fn waiting(&self, nars: usize) {
        self.waiting.set(i64::try_from(nars).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_stands_at_its_own_index() {
        for (index, (stage, _)) in STAGES.iter().enumerate() {
            assert_eq!(*stage as usize, index);
        }
    }
}
