//! Every metric: its name, its help and its labels, in one place.
//!
//! Label values come from fixed sets only, so that no request can make a new series. What a hot
//! path counts is resolved once: counting is then one atomic addition.

/// The registration of a fixed set of metrics: it fails only where two have one name, which the
/// first test of this module would show.
macro_rules! register {
    ($registry:expr, $metric:expr) => {{
        let metric = $metric?;
        $registry.register(Box::new(metric.clone()))?;
        metric
    }};
}

pub mod agent;
pub mod collect;
pub mod history;
pub mod http;
pub mod ingest;
pub mod process;
pub mod pull;
pub mod tls;
pub mod verify;
pub mod zfs;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use self::collect::CollectMetrics;
use self::history::{History, Traffic};
use self::http::HttpMetrics;
pub use self::http::{EncodingLabel, Route};
use self::ingest::IngestMetrics;
use self::process::ProcessMetrics;
use self::pull::PullMetrics;
use self::tls::TlsMetrics;
use self::verify::VerifyMetrics;
use self::zfs::ZfsMetrics;

/// Where an answer came from; the label `source`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the name of a source")]
pub enum SourceLabel {
    Bank,
    Store,
    /// A bank that another node keeps.
    Part,
    /// A cache as it was at a snapshot.
    View,
    /// Another node like this one.
    Peer,
    /// A cache elsewhere.
    Upstream,
}

const SOURCES: usize = 6;

impl SourceLabel {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Store => "store",
            Self::Part => "part",
            Self::View => "view",
            Self::Peer => "peer",
            Self::Upstream => "upstream",
        }
    }
}

/// All metrics of a process, registered in a registry of its own.
pub struct Metrics {
    registry: Registry,
    /// What is known of requests.
    pub http: HttpMetrics,
    narinfo_hits: [IntCounter; SOURCES],
    narinfo_misses: IntCounter,
    narinfo_memory_hits: IntCounter,
    /// NARs whose bytes were not those of their NarHash.
    pub hash_mismatches: IntCounter,
    /// Objects that lie in a source and are not what they should be.
    pub damaged: IntCounter,
    /// Signatures made; remembered ones are not counted.
    pub signatures: IntCounter,
    /// How long it took to sign a text with every key, in seconds.
    pub signing: Histogram,
    bakes: IntCounterVec,
    /// Bytes of the NARs baked from the local store, on disk.
    pub baked_bytes: IntGauge,
    /// Bakes waiting.
    pub bake_queue: IntGauge,
    /// Requests to views, however they were answered.
    pub view_requests: IntCounter,
    /// Views that are open.
    pub open_views: IntGauge,
    read_errors: IntCounterVec,
    quarantined: IntGaugeVec,
    heals: IntCounterVec,
    source_up: IntGaugeVec,
    source_paths: IntGaugeVec,
    source_bytes: IntGaugeVec,
    /// What is known of ZFS, and of the disks under the caches.
    pub zfs: ZfsMetrics,
    /// What is known of TLS.
    pub tls: TlsMetrics,
    /// What was collected.
    pub collect: CollectMetrics,
    process: ProcessMetrics,
    /// What was pushed.
    pub ingest: IngestMetrics,
    /// What was fetched from other caches.
    pub pull: PullMetrics,
    /// What was verified.
    pub verify: VerifyMetrics,
    /// What came and went over the last hours.
    pub history: History,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            Ok(register!(registry, IntCounter::new(name, help)))
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            Ok(register!(registry, IntGauge::new(name, help)))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntCounterVec::new(Opts::new(name, help), labels)
            ))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntGaugeVec::new(Opts::new(name, help), labels)
            ))
        };
        let hits = counters(
            "snowbank_narinfo_hits_total",
            "narinfo requests answered, by the source that had the path.",
            &["source"],
        )?;
        Ok(Self {
            http: HttpMetrics::new(&registry)?,
            narinfo_hits: ALL_SOURCES.map(|source| hits.with_label_values(&[source.label()])),
            narinfo_misses: counter(
                "snowbank_narinfo_misses_total",
                "narinfo requests for paths that no source had.",
            )?,
            narinfo_memory_hits: counter(
                "snowbank_narinfo_memory_hits_total",
                "narinfo requests answered from memory, hits and misses, without I/O.",
            )?,
            hash_mismatches: counter(
                "snowbank_nar_hash_mismatches_total",
                "NARs whose bytes were not those of their NarHash; none was sent whole.",
            )?,
            damaged: counter(
                "snowbank_damaged_objects_total",
                "Objects found damaged when they were asked for; each was answered as not there.",
            )?,
            signatures: counter("snowbank_signatures_total", "Signatures made.")?,
            signing: register!(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "snowbank_signing_duration_seconds",
                        "How long it took to sign a narinfo with every key.",
                    )
                    .buckets(vec![1e-5, 25e-6, 5e-5, 1e-4, 25e-5, 1e-3, 0.01]),
                )
            ),
            bakes: counters(
                "snowbank_bakes_total",
                "NARs baked from the local store, by result.",
                &["result"],
            )?,
            baked_bytes: gauge("snowbank_baked_bytes", "Bytes on disk of baked NARs.")?,
            bake_queue: gauge("snowbank_bake_queue_length", "Paths that wait to be baked.")?,
            view_requests: counter(
                "snowbank_view_requests_total",
                "Requests to a cache as it was at a snapshot.",
            )?,
            open_views: gauge(
                "snowbank_views_open",
                "Snapshots that are being served; one that nobody asks for is let go of.",
            )?,
            read_errors: counters(
                "snowbank_read_errors_total",
                "Reads that the disk refused (EIO), by the kind of source.",
                &["source"],
            )?,
            quarantined: gauges(
                "snowbank_quarantined_files",
                "Files that cannot be read, and are answered as not there until they can be.",
                &["cache", "source"],
            )?,
            heals: counters(
                "snowbank_heals_total",
                "Attempts to put a damaged path back from elsewhere, by whether they went well.",
                &["cache", "result"],
            )?,
            source_up: gauges(
                "snowbank_source_up",
                "1 if the source could be read when it was last looked at.",
                &["cache", "source"],
            )?,
            source_paths: gauges(
                "snowbank_source_paths",
                "Paths of the source at its last scan.",
                &["cache", "source"],
            )?,
            source_bytes: gauges(
                "snowbank_source_nar_bytes",
                "Bytes of the files of its NARs, as their narinfos say it.",
                &["cache", "source"],
            )?,
            zfs: ZfsMetrics::new(&registry)?,
            tls: TlsMetrics::new(&registry)?,
            collect: CollectMetrics::new(&registry)?,
            ingest: IngestMetrics::new(&registry)?,
            process: ProcessMetrics::new(&registry)?,
            pull: PullMetrics::new(&registry)?,
            verify: VerifyMetrics::new(&registry)?,
            history: History::default(),
            registry,
        })
    }

    /// Counts a narinfo answered by a source.
    pub fn narinfo_hit(&self, source: SourceLabel) {
        if http::UNCOUNTED {
            return;
        }
        self.narinfo_hits[source as usize].inc();
    }

    /// Counts a request for a narinfo that no source had.
    pub fn narinfo_missed(&self) {
        if !http::UNCOUNTED {
            self.narinfo_misses.inc();
        }
    }

    /// Counts a request for a narinfo that memory answered, without I/O.
    pub fn narinfo_remembered(&self) {
        if !http::UNCOUNTED {
            self.narinfo_memory_hits.inc();
        }
    }

    /// Counts a bake; `result` is one of a fixed set.
    pub fn bake(&self, result: &'static str) {
        self.bakes.with_label_values(&[result]).inc();
    }

    /// Notes how a source was at its last look. The names of both come from the configuration.
    pub fn source(&self, cache: &str, source: &str, up: bool, paths: usize) {
        let labels = [cache, source];
        self.source_up.with_label_values(&labels).set(i64::from(up));
        self.source_paths.with_label_values(&labels).set(i64::try_from(paths).unwrap_or(i64::MAX));
    }

    /// Notes how many bytes the NARs of a source take. The names of both come from the configuration.
    pub fn source_bytes(&self, cache: &str, source: &str, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.source_bytes.with_label_values(&[cache, source]).set(bytes);
    }

    /// Notes how many files of a source are in quarantine. The names of both come from the configuration.
    pub fn quarantined(&self, cache: &str, source: &str, files: usize) {
        let files = i64::try_from(files).unwrap_or(i64::MAX);
        self.quarantined.with_label_values(&[cache, source]).set(files);
    }

    /// What counts the attempts to heal a path of a cache that go well, or those that do not. The name
    /// comes from the configuration.
    pub fn heal(&self, cache: &str, well: bool) -> IntCounter {
        self.heals.with_label_values(&[cache, if well { "ok" } else { "failed" }])
    }

    /// What counts the read errors of a kind of source.
    pub fn read_errors(&self, source: SourceLabel) -> IntCounter {
        self.read_errors.with_label_values(&[source.label()])
    }

    /// What has been counted since the start of what goes to and fro.
    pub fn traffic(&self) -> Traffic {
        let (pushed_paths, pushed_bytes) = self.ingest.pushed();
        Traffic {
            requests: self.http.requests_answered(),
            hits: self.narinfo_hits.iter().map(IntCounter::get).sum(),
            misses: self.narinfo_misses.get(),
            sent_bytes: self.http.sent_bytes(),
            pushed_paths,
            pushed_bytes,
        }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        self.process.render(&self.registry)
    }
}

const ALL_SOURCES: [SourceLabel; SOURCES] = [
    SourceLabel::Bank,
    SourceLabel::Store,
    SourceLabel::Part,
    SourceLabel::View,
    SourceLabel::Peer,
    SourceLabel::Upstream,
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::http::Method;

    use super::*;

    #[test]
    fn every_metric_registers_and_renders() {
        let metrics = Metrics::new().unwrap();
        metrics.http.request(Route::NarInfo, &Method::GET, 200);
        metrics.http.request(Route::Nar, &Method::PUT, 599);
        metrics.http.answered(Route::Nar, Duration::from_millis(1));
        metrics.http.sent(EncodingLabel::Compressed, 10);
        metrics.http.connections("accepted", 3);
        metrics.narinfo_hit(SourceLabel::Bank);
        metrics.http.denied("push", "expired");
        metrics.source("default", "store", true, 7);
        metrics.source_bytes("default", "bank", 9);
        metrics.read_errors(SourceLabel::Part).inc();
        metrics.quarantined("default", "part-1", 2);
        metrics.heal("default", true).inc();
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            "snowbank_http_requests_total{method=\"GET\",route=\"narinfo\",status=\"200\"} 1",
            "snowbank_http_requests_total{method=\"PUT\",route=\"nar\",status=\"500\"} 1",
            "snowbank_connections_total{event=\"accepted\"} 3",
            "snowbank_http_sent_bytes_total{encoding=\"compressed\"} 10",
            "snowbank_denied_requests_total{reason=\"expired\",right=\"push\"} 1",
            "snowbank_source_paths{cache=\"default\",source=\"store\"} 7",
            "snowbank_source_nar_bytes{cache=\"default\",source=\"bank\"} 9",
            "snowbank_read_errors_total{source=\"part\"} 1",
            "snowbank_quarantined_files{cache=\"default\",source=\"part-1\"} 2",
            "snowbank_heals_total{cache=\"default\",result=\"ok\"} 1",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn each_source_stands_at_its_own_index() {
        for (index, source) in ALL_SOURCES.iter().enumerate() {
            assert_eq!(*source as usize, index);
        }
    }
}
