//! The accept loop: from sockets to requests.
//!
//! Not `axum::serve`: it has no head timeout, no connection cap and no drain deadline, and hyper's own
//! timeout is inert under it (facts/index-and-http.md 5.3, measured). What happens to a connection:
//!
//! 1. a place is taken before it is accepted (`admission.rs`), so a flood waits in the kernel's queue;
//! 2. its socket has the options it needs from the listening one (`socket.rs`);
//! 3. hands are shaken, where it is TLS (`secure.rs`);
//! 4. hyper reads it through a guard with deadlines and, of HTTP/1, a strict look at heads (`guard.rs`,
//!    `head.rs`);
//! 5. the service answers; on shutdown, requests in flight are finished (`connection.rs`).

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

mod address;
mod admission;
mod body;
mod connection;
mod guard;
mod head;
mod secure;
mod socket;
#[cfg(test)]
mod tests;
mod track;

pub use address::{AddressError, ListenAddress};
pub use admission::{Client, Peer};
pub use body::{PatientBody, ReadOn, RequestBodyError};
pub use socket::{BindError, Listeners};

use admission::Admission;
use guard::Deadlines;

/// What connections may use up.
#[derive(Clone, Debug)]
pub struct ListenLimits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once from one IPv4 address or IPv6 /64; more are closed. Loopback and unix
    /// sockets are not counted.
    pub connections_per_ip: usize,
    /// From the first byte of a head to its last; also how long a new connection may be silent.
    pub head_timeout: Duration,
    /// How long a connection may lie idle between two requests.
    pub idle_timeout: Duration,
    /// How long a reader may take nothing.
    pub stall_timeout: Duration,
    /// How long requests in flight have to finish once the server drains.
    pub drain_timeout: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_ip: 256,
            head_timeout: Duration::from_secs(10),
            // Longer than the 60 s after which common proxies drop their side, so that it is they
            // who close: a request that meets our close is one they have to report as an error.
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What happened to connections so far; to be exported as metrics.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Connections that are open now.
    pub open: AtomicU64,
    /// Connections that were let in.
    pub accepted: AtomicU64,
    /// Connections that were closed at once, because their address had too many.
    pub refused: AtomicU64,
    /// Times that the kernel could not give us a connection, such as for want of file descriptors.
    pub accept_errors: AtomicU64,
    /// Connections closed because a head did not come, or not whole.
    pub head_timeouts: AtomicU64,
    /// Connections closed because they lay idle.
    pub idle_timeouts: AtomicU64,
    /// Downloads cut because the reader took nothing.
    pub stall_timeouts: AtomicU64,
    /// Requests that are not HTTP as we read it.
    pub malformed: AtomicU64,
    /// Requests that did not finish before the drain deadline.
    pub cut_short: AtomicU64,
    /// TLS 1.2 was agreed upon.
    pub handshakes_tls12: AtomicU64,
    /// TLS 1.3 was agreed upon.
    pub handshakes_tls13: AtomicU64,
    /// Handshakes that failed.
    pub handshake_errors: AtomicU64,
    /// Handshakes that took too long.
    pub handshake_timeouts: AtomicU64,
    /// Connections to a TLS port that spoke something else.
    pub plain_on_tls: AtomicU64,
    /// Connections over which HTTP/2 is spoken, so far.
    pub http2: AtomicU64,
}

/// Where the server stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connections are accepted.
    Serving,
    /// No more connections; requests in flight may finish.
    Draining,
    /// Nothing is waited for.
    Aborting,
}

/// Accepts and serves connections until `stage` says to stop, and returns when the last is gone or the
/// drain deadline has passed.
///
/// `service_for` is called once a connection, so that what is known about the client costs nothing a
/// request. Dropping the sender of `stage` is the same as [`Stage::Aborting`].
pub async fn serve<F, S, B>(
    listeners: Listeners,
    limits: &ListenLimits,
    stats: Arc<ConnectionStats>,
    stage: watch::Receiver<Stage>,
    service_for: F,
) where
    F: Fn(Client) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let admission = Admission::new(limits, stats.clone());
    let shared = Arc::new(Shared::new(limits, stats));
    // The connections have a channel of their own, because the drain deadline ends them as well.
    let (connections, connection_stage) = watch::channel(Stage::Serving);
    let service_for = Arc::new(service_for);
    let accepting = accept(listeners, &admission, &shared, &connection_stage, &service_for);
    tokio::select! {
        never = accepting => match never {},
        () = reached(stage.clone(), Stage::Draining) => {}
    }
    // The listeners are gone with the future above; whoever connects now is refused by the kernel.
    connections.send_replace(Stage::Draining);
    tokio::select! {
        () = admission.all_gone() => return,
        () = reached(stage.clone(), Stage::Aborting) => {}
        () = tokio::time::sleep(limits.drain_timeout) => {
            tracing::warn!(open = shared.stats.open.load(Relaxed), "the drain deadline has passed");
        }
    }
    connections.send_replace(Stage::Aborting);
    // Each connection's task only has to be woken; one that is stuck in a poll is not waited for.
    let _stuck = tokio::time::timeout(ABORT_TIMEOUT, admission.all_gone()).await;
}

/// How long connections have to notice that they are over.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to pause where the kernel has no file descriptor or no memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The least time between two log lines about that.
const WARNING_PAUSE: Duration = Duration::from_secs(10);

/// What all connections share.
struct Shared {
    http: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    deadlines: Deadlines,
    stats: Arc<ConnectionStats>,
}

impl Shared {
    fn new(limits: &ListenLimits, stats: Arc<ConnectionStats>) -> Self {
        let mut http = http1::Builder::new();
        // The guard has the deadlines, see there.
        http.header_read_timeout(None);
        // No `pipeline_flush`, though it makes small answers a little cheaper: it copies every body
        // into one buffer, and takes that buffer for endless. Measured on a 1 GiB answer: 1.0 to 1.4
        // CPU-s/GiB instead of 0.3 to 0.4, and 1 GiB of memory a connection.
        http.max_headers(64);
        http.max_header_size(32 * 1024);
        http.max_buf_size(64 * 1024);
        let deadlines = Deadlines {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            stall: limits.stall_timeout,
        };
        Self { http, http2: http2(), deadlines, stats }
    }
}

/// Requests at once over one connection of HTTP/2. Nix asks for up to 25.
const STREAMS: u32 = 128;
/// The largest head over HTTP/2, in bytes.
const MAX_HEAD: u32 = 16 * 1024;
/// What is held for a peer who does not take it, a stream, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// How much of an upload may come before we have looked at it: of one, and of all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

fn http2() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        // No pings: one waits its turn behind what a slow reader has not read yet, and its answer is late though
        // he reads. The guard sees whether bytes move, and the kernel's keepalive whether anybody is there.
        .initial_connection_window_size(CONNECTION_WINDOW);
    http
}

/// Accepts for ever.
async fn accept<F, S, B>(
    mut listeners: Listeners,
    admission: &Arc<Admission>,
    shared: &Arc<Shared>,
    stage: &watch::Receiver<Stage>,
    service_for: &Arc<F>,
) -> Infallible
where
    F: Fn(Client) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut last_warning: Option<Instant> = None;
    loop {
        let place = admission.place().await;
        match listeners.accept().await {
            Ok(accepted) => {
                let peer = accepted.peer;
                let Some(admitted) = place.ok().and_then(|place| admission.admit(peer, place))
                else {
                    tracing::debug!(?peer, "refused a connection: its address has too many");
                    continue;
                };
                let service_for = service_for.clone();
                let served =
                    connection::serve(accepted, service_for, shared.clone(), stage.clone());
                tokio::spawn(async move {
                    served.await;
                    drop(admitted);
                });
            }
            // The client was gone before we came to it.
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                shared.stats.accept_errors.fetch_add(1, Relaxed);
                // Now and then only, or a lack of file descriptors would fill the disk as well.
                if last_warning.is_none_or(|last| last.elapsed() >= WARNING_PAUSE) {
                    tracing::warn!(%error, "cannot accept connections; trying on");
                    last_warning = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Waits until `stage` is `wanted` or further.
async fn reached(mut stage: watch::Receiver<Stage>, wanted: Stage) {
    // An error means that the sender is gone, which counts as the end.
    let _gone = stage.wait_for(|now| *now == wanted || *now == Stage::Aborting).await;
}
