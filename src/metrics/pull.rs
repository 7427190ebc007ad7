//! Metrics of what is fetched from other caches.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// All of them, by cache and by the address of the other one, which both come from the configuration.
pub struct PullMetrics {
    asked: IntCounterVec,
    pulled: IntCounterVec,
    bytes: IntCounterVec,
    up: IntGaugeVec,
    paths: IntGaugeVec,
    narinfo_durations: HistogramVec,
    nar_durations: HistogramVec,
}

const NARINFO_BUCKETS: [f64; 9] = [1e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const NAR_BUCKETS: [f64; 8] = [0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// Those of one other cache.
#[derive(Clone)]
pub struct PlaceMetrics {
    /// It had the path.
    pub had: IntCounter,
    /// It had it not.
    pub had_not: IntCounter,
    /// It had the path, and no key signed that which we know.
    pub untrusted: IntCounter,
    /// It gave no answer, or none in time.
    pub no_answer: IntCounter,
    /// NARs that were fetched, and kept.
    pub pulled: IntCounter,
    /// NARs of which that failed.
    pub not_pulled: IntCounter,
    /// Bytes of NARs that were fetched, uncompressed.
    pub bytes: IntCounter,
    /// 1 while it is asked.
    pub up: IntGauge,
    /// Paths that it holds, where it tells.
    pub paths: IntGauge,
    /// How long it took to answer for a path, in seconds.
    pub narinfo_duration: Histogram,
    /// How long it took to fetch a NAR and keep it, in seconds.
    pub nar_duration: Histogram,
}

impl PullMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntCounterVec::new(Opts::new(name, help), labels)
            ))
        };
        let gauges = |name: &str, help: &str| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntGaugeVec::new(Opts::new(name, help), &["cache", "upstream"])
            ))
        };
        let histograms = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let labels = &["cache", "upstream"];
            Ok::<_, prometheus::Error>(register!(registry, HistogramVec::new(options, labels)))
        };
        Ok(Self {
            narinfo_durations: histograms(
                "snowbank_upstream_narinfo_duration_seconds",
                "How long an upstream or a peer took to say whether it has a path.",
                &NARINFO_BUCKETS,
            )?,
            nar_durations: histograms(
                "snowbank_pull_duration_seconds",
                "How long it took to fetch a NAR from an upstream or a peer, and to keep it.",
                &NAR_BUCKETS,
            )?,
            asked: counters(
                "snowbank_upstream_narinfo_requests_total",
                "Paths that an upstream or a peer was asked for, by what it said.",
                &["cache", "upstream", "result"],
            )?,
            pulled: counters(
                "snowbank_pulled_nars_total",
                "NARs that were fetched from an upstream or a peer, by whether that went well.",
                &["cache", "upstream", "result"],
            )?,
            bytes: counters(
                "snowbank_pulled_bytes_total",
                "Bytes of NARs that were fetched and kept, uncompressed.",
                &["cache", "upstream"],
            )?,
            up: gauges(
                "snowbank_upstream_up",
                "1 while an upstream or a peer is asked, 0 while it is not because it did not answer.",
            )?,
            paths: gauges("snowbank_peer_paths", "Paths that a peer holds, by what it told last.")?,
        })
    }

    /// Those of the cache at `upstream`, as `cache` asks it.
    pub fn of(&self, cache: &str, upstream: &str) -> PlaceMetrics {
        let asked = |result| self.asked.with_label_values(&[cache, upstream, result]);
        let pulled = |result| self.pulled.with_label_values(&[cache, upstream, result]);
        PlaceMetrics {
            had: asked("hit"),
            had_not: asked("miss"),
            untrusted: asked("untrusted"),
            no_answer: asked("no_answer"),
            pulled: pulled("ok"),
            not_pulled: pulled("failed"),
            bytes: self.bytes.with_label_values(&[cache, upstream]),
            up: self.up.with_label_values(&[cache, upstream]),
            paths: self.paths.with_label_values(&[cache, upstream]),
            narinfo_duration: self.narinfo_durations.with_label_values(&[cache, upstream]),
            nar_duration: self.nar_durations.with_label_values(&[cache, upstream]),
        }
    }
}
