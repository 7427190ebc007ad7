//! Metrics of verifying.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// All of them, by cache.
pub struct VerifyMetrics {
    paths: IntCounterVec,
    bytes: IntCounterVec,
    findings: IntCounterVec,
    mended: IntCounterVec,
    open: IntGaugeVec,
    last: IntGaugeVec,
}

impl VerifyMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntCounterVec::new(Opts::new(name, help), labels)
            ))
        };
        let gauge = |name: &str, help: &str| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntGaugeVec::new(Opts::new(name, help), &["cache"])
            ))
        };
        Ok(Self {
            paths: counter(
                "snowbank_verified_paths_total",
                "Paths that were held against their bytes.",
                &["cache"],
            )?,
            bytes: counter(
                "snowbank_verified_bytes_total",
                "Bytes of stored NARs that were read to verify them.",
                &["cache"],
            )?,
            findings: counter(
                "snowbank_verify_findings_total",
                "What was found by that and not mended, by what it is about.",
                &["cache", "kind"],
            )?,
            mended: counter(
                "snowbank_verify_mended_total",
                "Paths that something was wrong with, and that were mended.",
                &["cache"],
            )?,
            open: gauge(
                "snowbank_verify_open_findings",
                "Paths that something was found wrong with, and that are not mended yet.",
            )?,
            last: gauge(
                "snowbank_verified_timestamp_seconds",
                "When a cache was last verified to the end.",
            )?,
        })
    }

    /// Counts a path and the bytes that were read of it.
    pub fn path(&self, cache: &str, bytes: u64) {
        self.paths.with_label_values(&[cache]).inc();
        self.bytes.with_label_values(&[cache]).inc_by(bytes);
    }

    /// Counts what was found; the kind is of a fixed set.
    pub fn found(&self, cache: &str, kind: &'static str) {
        self.findings.with_label_values(&[cache, kind]).inc();
    }

    /// Counts a path that was mended.
    pub fn mended(&self, cache: &str) {
        self.mended.with_label_values(&[cache]).inc();
    }

    /// Notes how many paths something is wrong with still.
    pub fn open(&self, cache: &str, paths: usize) {
        self.open.with_label_values(&[cache]).set(i64::try_from(paths).unwrap_or(i64::MAX));
    }

    /// Notes when a cache was last verified to the end, in seconds since 1970.
    pub fn ended(&self, cache: &str, at: i64) {
        self.last.with_label_values(&[cache]).set(at);
    }
}
