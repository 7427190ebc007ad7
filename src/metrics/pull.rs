//! Metrics of what is fetched from other caches.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All of them, by cache and by the address of the other one, which both come from the configuration.
pub struct PullMetrics {
    asked: IntCounterVec,
    pulled: IntCounterVec,
    bytes: IntCounterVec,
    up: IntGaugeVec,
    paths: IntGaugeVec,
}

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
        Ok(Self {
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
        }
    }
}
