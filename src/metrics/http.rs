//! Metrics of requests and of the connections that they come by.

use std::array;
use std::sync::OnceLock;
use std::time::Duration;

use http::Method;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

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
    Path,
    Search,
    Native,
    Other,
}

const ROUTES: usize = 15;

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
            Self::Path => "path",
            Self::Search => "search",
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

/// The methods that are labels of their own; any other counts as the last.
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "other"];

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

/// All of them.
pub struct HttpMetrics {
    requests: IntCounterVec,
    resolved: [[[OnceLock<IntCounter>; STATUSES.len()]; METHODS.len()]; ROUTES],
    latency: [Histogram; ROUTES],
    first_byte: [Histogram; ROUTES],
    bytes: [IntCounter; 3],
    /// Requests that are being answered, but for those that memory answers at once.
    pub in_flight: IntGauge,
    /// Answers that ended before their last byte: the client left, or we cut them.
    pub aborted_transfers: IntCounter,
    /// Connections open now.
    pub open_connections: IntGauge,
    connections: IntCounterVec,
    denied: IntCounterVec,
}

/// Whether this is the build of `bench/overhead` that counts no request.
pub(super) const UNCOUNTED: bool = cfg!(feature = "uncounted");

const LATENCY_BUCKETS: [f64; 14] =
    [50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0];

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            Ok::<_, prometheus::Error>(register!(
                registry,
                IntCounterVec::new(Opts::new(name, help), labels)
            ))
        };
        let gauge = |name: &str, help: &str| {
            Ok::<_, prometheus::Error>(register!(registry, IntGauge::new(name, help)))
        };
        let by_route = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
            let vec = register!(registry, HistogramVec::new(options, &["route"]));
            Ok::<_, prometheus::Error>(array::from_fn(|index| {
                vec.with_label_values(&[ALL_ROUTES[index].label()])
            }))
        };
        let bytes = counters(
            "snowbank_http_sent_bytes_total",
            "Bytes of bodies sent, by how they are encoded.",
            &["encoding"],
        )?;
        Ok(Self {
            requests: counters(
                "snowbank_http_requests_total",
                "Requests answered, by route, method and status.",
                &["route", "method", "status"],
            )?,
            resolved: array::from_fn(|_| array::from_fn(|_| array::from_fn(|_| OnceLock::new()))),
            latency: by_route(
                "snowbank_http_request_duration_seconds",
                "From a request's head to the last byte of its answer.",
            )?,
            first_byte: by_route(
                "snowbank_http_time_to_first_byte_seconds",
                "From a request's head to the first byte of its answer's body.",
            )?,
            bytes: ["nar", "compressed", "other"].map(|label| bytes.with_label_values(&[label])),
            in_flight: gauge(
                "snowbank_http_requests_in_flight",
                "Requests that are being answered, but for narinfo that memory answers at once.",
            )?,
            aborted_transfers: register!(
                registry,
                IntCounter::new(
                    "snowbank_aborted_transfers_total",
                    "Answers that ended before their last byte.",
                )
            ),
            open_connections: gauge("snowbank_connections_open", "Connections open now.")?,
            connections: counters(
                "snowbank_connections_total",
                "Connections, by what became of them.",
                &["event"],
            )?,
            denied: counters(
                "snowbank_denied_requests_total",
                "Requests of those who may not, by what they wanted and why they may not.",
                &["right", "reason"],
            )?,
        })
    }

    /// Counts an answered request.
    pub fn request(&self, route: Route, method: &Method, status: u16) {
        if UNCOUNTED {
            return;
        }
        let last = METHODS.len() - 1;
        let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(last);
        let index = STATUSES.iter().position(|known| *known == status).unwrap_or_else(|| {
            let first = status / 100 * 100;
            STATUSES.iter().position(|known| *known == first).unwrap_or(0)
        });
        self.resolved[route as usize][method][index]
            .get_or_init(|| {
                let status = STATUSES[index].to_string();
                self.requests.with_label_values(&[route.label(), METHODS[method], &status])
            })
            .inc();
    }

    /// Notes how long an answer took to its last byte.
    pub fn answered(&self, route: Route, elapsed: Duration) {
        if UNCOUNTED {
            return;
        }
        self.latency[route as usize].observe(elapsed.as_secs_f64());
    }

    /// Notes how long an answer took to the first byte of its body.
    pub fn first_byte(&self, route: Route, elapsed: Duration) {
        if UNCOUNTED {
            return;
        }
        self.first_byte[route as usize].observe(elapsed.as_secs_f64());
    }

    /// Counts bytes of a body.
    pub fn sent(&self, encoding: EncodingLabel, bytes: usize) {
        if UNCOUNTED {
            return;
        }
        self.bytes[encoding as usize].inc_by(bytes as u64);
    }

    /// How many requests were answered.
    pub(super) fn requests_answered(&self) -> u64 {
        let resolved = self.resolved.as_flattened().as_flattened();
        resolved.iter().filter_map(OnceLock::get).map(IntCounter::get).sum()
    }

    /// How many bytes of bodies were sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.bytes.iter().map(IntCounter::get).sum()
    }

    /// Counts a request that was turned away; both are of fixed sets.
    pub fn denied(&self, right: &'static str, reason: &'static str) {
        self.denied.with_label_values(&[right, reason]).inc();
    }

    /// Notes how many connections something became of since the start; it is one of a fixed set.
    pub fn connections(&self, event: &'static str, count: u64) {
        raise(&self.connections.with_label_values(&[event]), count);
    }
}

/// Has a counter say what somebody else has counted since the start.
pub(super) fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

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
    Route::Path,
    Route::Search,
    Route::Native,
    Route::Other,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_stands_at_its_own_index() {
        for (index, route) in ALL_ROUTES.iter().enumerate() {
            assert_eq!(*route as usize, index);
        }
    }

    #[test]
    fn a_method_that_nobody_knows_makes_no_series_of_its_own() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry).unwrap();
        for method in ["BREW", "WHEN"] {
            metrics.request(Route::Other, &Method::from_bytes(method.as_bytes()).unwrap(), 405);
        }
        let counted = metrics.requests.with_label_values(&["other", "other", "405"]);
        assert_eq!(counted.get(), 2);
    }

    #[test]
    fn what_somebody_else_counts_is_said_as_it_is() {
        let counter = IntCounter::new("a", "b").unwrap();
        for count in [3, 3, 7] {
            raise(&counter, count);
            assert_eq!(counter.get(), count);
        }
    }
}
