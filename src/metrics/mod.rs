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
pub mod pull;
pub mod tls;
pub mod verify;
pub mod zfs;

use std::array;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::collect::CollectMetrics;
use self::pull::PullMetrics;
use self::tls::TlsMetrics;
use self::verify::VerifyMetrics;
use self::zfs::ZfsMetrics;

/// What a request was for; the label `route`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the name of an endpoint")]
pub enum Route {
    CacheInfo,
    NarInfo,
    Nar,
    Listing,
    Log,
    Realisation,
    DebugInfo,
    Serve,
    Health,
    Metrics,
    Landing,
    Native,
    Other,
}

const ROUTES: usize = 13;

impl Route {
    const fn label(self) -> &'static str {
        match self {
            Self::CacheInfo => "nix-cache-info",
            Self::NarInfo => "narinfo",
            Self::Nar => "nar",
            Self::Listing => "listing",
            Self::Log => "log",
            Self::Realisation => "realisation",
            Self::DebugInfo => "debuginfo",
            Self::Serve => "serve",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Landing => "landing",
            Self::Native => "native",
            Self::Other => "other",
        }
    }
}

/// The statuses that are labels of their own; another one counts as the first of its hundred.
const STATUSES: [u16; 26] = [
    200, 201, 204, 206, 300, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 416,
    422, 429, 431, 500, 503, 504, 507,
];

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

/// How the bytes of an answer are encoded; the label `encoding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the name of an encoding")]
pub enum EncodingLabel {
    /// Uncompressed NARs.
    Nar,
    /// Compressed NARs, as stored.
    Compressed,
    /// Everything else.
    Other,
}

/// All metrics of a process, registered in a registry of its own.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    resolved: [[OnceLock<IntCounter>; STATUSES.len()]; ROUTES],
    latency: [Histogram; ROUTES],
    first_byte: [Histogram; ROUTES],
    bytes: [IntCounter; 3],
    narinfo_hits: [IntCounter; SOURCES],
    /// narinfo requests that no source had.
    pub narinfo_misses: IntCounter,
    /// narinfo answered from memory, without I/O.
    pub narinfo_memory_hits: IntCounter,
    /// Answers that ended before their last byte: the client left, or we cut them.
    pub aborted_transfers: IntCounter,
    /// NARs whose bytes were not those of their NarHash.
    pub hash_mismatches: IntCounter,
    /// Objects that lie in a source and are not what they should be.
    pub damaged: IntCounter,
    /// Signatures made; remembered ones are not counted.
    pub signatures: IntCounter,
    bakes: IntCounterVec,
    /// Bytes of the NARs baked from the local store, on disk.
    pub baked_bytes: IntGauge,
    /// Bakes waiting.
    pub bake_queue: IntGauge,
    /// Connections open now.
    pub open_connections: IntGauge,
    /// Connections by what became of them; set from the listener's own counts.
    pub connections: IntGaugeVec,
    denied: IntCounterVec,
    /// Requests to views, however they were answered.
    pub view_requests: IntCounter,
    /// Views that are open.
    pub open_views: IntGauge,
    read_errors: IntCounterVec,
    quarantined: IntGaugeVec,
    heals: IntCounterVec,
    source_up: IntGaugeVec,
    source_paths: IntGaugeVec,
    /// What is known of ZFS, and of the disks under the caches.
    pub zfs: ZfsMetrics,
    /// What is known of TLS.
    pub tls: TlsMetrics,
    /// What was collected.
    pub collect: CollectMetrics,
    /// What was fetched from other caches.
    pub pull: PullMetrics,
    /// What was verified.
    pub verify: VerifyMetrics,
}

const LATENCY_BUCKETS: [f64; 14] =
    [50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0];

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
        let histograms = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
            Ok::<_, prometheus::Error>(register!(registry, HistogramVec::new(options, &["route"])))
        };
        let by_route = |vec: &HistogramVec| {
            array::from_fn(|index| vec.with_label_values(&[ALL_ROUTES[index].label()]))
        };
        let latency = histograms(
            "snowbank_http_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
        )?;
        let first_byte = histograms(
            "snowbank_http_time_to_first_byte_seconds",
            "From a request's head to the first byte of its answer's body.",
        )?;
        let bytes = counters(
            "snowbank_http_sent_bytes_total",
            "Bytes of bodies sent, by how they are encoded.",
            &["encoding"],
        )?;
        let hits = counters(
            "snowbank_narinfo_hits_total",
            "narinfo requests answered, by the source that had the path.",
            &["source"],
        )?;
        let build = gauges(
            "snowbank_build_info",
            "Always 1; the labels say which build this is.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            requests: counters(
                "snowbank_http_requests_total",
                "Requests answered, by route and status.",
                &["route", "status"],
            )?,
            resolved: array::from_fn(|_| array::from_fn(|_| OnceLock::new())),
            latency: by_route(&latency),
            first_byte: by_route(&first_byte),
            bytes: ["nar", "compressed", "other"].map(|label| bytes.with_label_values(&[label])),
            narinfo_hits: ALL_SOURCES.map(|source| hits.with_label_values(&[source.label()])),
            narinfo_misses: counter(
                "snowbank_narinfo_misses_total",
                "narinfo requests for paths that no source had.",
            )?,
            narinfo_memory_hits: counter(
                "snowbank_narinfo_memory_hits_total",
                "narinfo requests answered from memory, hits and misses, without I/O.",
            )?,
            aborted_transfers: counter(
                "snowbank_aborted_transfers_total",
                "Answers that ended before their last byte.",
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
            bakes: counters(
                "snowbank_bakes_total",
                "NARs baked from the local store, by result.",
                &["result"],
            )?,
            baked_bytes: gauge("snowbank_baked_bytes", "Bytes on disk of baked NARs.")?,
            bake_queue: gauge("snowbank_bake_queue_length", "Paths that wait to be baked.")?,
            open_connections: gauge("snowbank_connections_open", "Connections open now.")?,
            connections: gauges(
                "snowbank_connections",
                "Connections since the start, by what became of them.",
                &["event"],
            )?,
            denied: counters(
                "snowbank_denied_requests_total",
                "Requests of those who may not, by what they wanted and why they may not.",
                &["right", "reason"],
            )?,
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
            zfs: ZfsMetrics::new(&registry)?,
            tls: TlsMetrics::new(&registry)?,
            collect: CollectMetrics::new(&registry)?,
            pull: PullMetrics::new(&registry)?,
            verify: VerifyMetrics::new(&registry)?,
            registry,
        })
    }

    /// Counts an answered request.
    pub fn request(&self, route: Route, status: u16) {
        let index = STATUSES.iter().position(|known| *known == status).unwrap_or_else(|| {
            let first = status / 100 * 100;
            STATUSES.iter().position(|known| *known == first).unwrap_or(0)
        });
        self.resolved[route as usize][index]
            .get_or_init(|| {
                let status = STATUSES[index].to_string();
                self.requests.with_label_values(&[route.label(), &status])
            })
            .inc();
    }

    /// Notes how long an answer took to its last byte.
    pub fn answered(&self, route: Route, elapsed: Duration) {
        self.latency[route as usize].observe(elapsed.as_secs_f64());
    }

    /// Notes how long an answer took to the first byte of its body.
    pub fn first_byte(&self, route: Route, elapsed: Duration) {
        self.first_byte[route as usize].observe(elapsed.as_secs_f64());
    }

    /// Counts bytes of a body.
    pub fn sent(&self, encoding: EncodingLabel, bytes: usize) {
        self.bytes[encoding as usize].inc_by(bytes as u64);
    }

    /// Counts a narinfo answered by a source.
    pub fn narinfo_hit(&self, source: SourceLabel) {
        self.narinfo_hits[source as usize].inc();
    }

    /// Counts a bake; `result` is one of a fixed set.
    pub fn bake(&self, result: &'static str) {
        self.bakes.with_label_values(&[result]).inc();
    }

    /// Counts a request that was turned away; both are of fixed sets.
    pub fn denied(&self, right: &'static str, reason: &'static str) {
        self.denied.with_label_values(&[right, reason]).inc();
    }

    /// Notes how a source was at its last look. The names of both come from the configuration.
    pub fn source(&self, cache: &str, source: &str, up: bool, paths: usize) {
        let labels = [cache, source];
        self.source_up.with_label_values(&labels).set(i64::from(up));
        self.source_paths.with_label_values(&labels).set(i64::try_from(paths).unwrap_or(i64::MAX));
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

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
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

const ALL_ROUTES: [Route; ROUTES] = [
    Route::CacheInfo,
    Route::NarInfo,
    Route::Nar,
    Route::Listing,
    Route::Log,
    Route::Realisation,
    Route::DebugInfo,
    Route::Serve,
    Route::Health,
    Route::Metrics,
    Route::Landing,
    Route::Native,
    Route::Other,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_renders() {
        let metrics = Metrics::new().unwrap();
        metrics.request(Route::NarInfo, 200);
        metrics.request(Route::Nar, 599);
        metrics.answered(Route::Nar, Duration::from_millis(1));
        metrics.sent(EncodingLabel::Compressed, 10);
        metrics.narinfo_hit(SourceLabel::Bank);
        metrics.denied("push", "expired");
        metrics.source("default", "store", true, 7);
        metrics.read_errors(SourceLabel::Part).inc();
        metrics.quarantined("default", "part-1", 2);
        metrics.heal("default", true).inc();
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            "snowbank_http_requests_total{route=\"narinfo\",status=\"200\"} 1",
            "snowbank_http_requests_total{route=\"nar\",status=\"500\"} 1",
            "snowbank_http_sent_bytes_total{encoding=\"compressed\"} 10",
            "snowbank_denied_requests_total{reason=\"expired\",right=\"push\"} 1",
            "snowbank_source_paths{cache=\"default\",source=\"store\"} 7",
            "snowbank_read_errors_total{source=\"part\"} 1",
            "snowbank_quarantined_files{cache=\"default\",source=\"part-1\"} 2",
            "snowbank_heals_total{cache=\"default\",result=\"ok\"} 1",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn each_route_and_source_stands_at_its_own_index() {
        for (index, route) in ALL_ROUTES.iter().enumerate() {
            assert_eq!(*route as usize, index);
        }
        for (index, source) in ALL_SOURCES.iter().enumerate() {
            assert_eq!(*source as usize, index);
        }
    }
}
