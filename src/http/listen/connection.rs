//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;

use super::guard::Guard;
use super::head::HeadScanner;
use super::secure;
use super::socket::{Accepted, Transport};
use super::track::{Progress, Tracked};
use super::{Client, Shared, Stage, reached};
use crate::tls::challenge;

/// Serves a connection until either side ends it, or the server does.
pub(super) async fn serve<F, S, B>(
    accepted: Accepted,
    service_for: Arc<F>,
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
) where
    F: Fn(Client) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Accepted { socket, peer, tls } = accepted;
    let Some(config) = tls else {
        let service = service_for(Client { peer, certificate: None, is_secure: false });
        return over_http1(socket, service, &shared, stage).await;
    };
    let Some(stream) = secure::handshake(socket, config, &shared).await else { return };
    let certificate = secure::client_certificate(&stream).map(Arc::new);
    let service = service_for(Client { peer, certificate, is_secure: true });
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => over_http2(stream, service, &shared, stage).await,
        // An ACME server has seen its proof, and nothing else is said.
        Some(challenge::PROTOCOL) => {}
        _ => over_http1(stream, service, &shared, stage).await,
    }
}

async fn over_http1<T, S, B>(
    transport: T,
    service: S,
    shared: &Shared,
    stage: watch::Receiver<Stage>,
) where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (guard, service, progress) = watched(transport, Some(HeadScanner::new()), service, shared);
    let connection = shared.http.serve_connection(guard, service);
    to_its_end(connection, &progress, shared, stage).await;
}

async fn over_http2<T, S, B>(
    transport: T,
    service: S,
    shared: &Shared,
    stage: watch::Receiver<Stage>,
) where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    shared.stats.http2.fetch_add(1, Relaxed);
    let (guard, service, progress) = watched(transport, None, service, shared);
    let connection = shared.http2.serve_connection(guard, service);
    to_its_end(connection, &progress, shared, stage).await;
}

/// What hyper is given of a connection: both know of each other by what they note.
fn watched<T: Transport, S>(
    transport: T,
    scanner: Option<HeadScanner>,
    service: S,
    shared: &Shared,
) -> (TokioIo<Guard<T>>, Tracked<S>, Arc<Progress>) {
    let progress = Arc::new(Progress::default());
    let stats = shared.stats.clone();
    let guard = Guard::new(transport, scanner, shared.deadlines, stats, progress.clone());
    (TokioIo::new(guard), Tracked { service, progress: progress.clone() }, progress)
}

/// A connection that can be told to take no more requests.
trait Drain: Future<Output = hyper::Result<()>> {
    /// Lets it end when what is in flight is answered.
    fn drain(self: Pin<&mut Self>);
}

impl<I, S, B> Drain for http1::Connection<I, S>
where
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Drain for http2::Connection<I, S, TokioExecutor>
where
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn to_its_end(
    connection: impl Drain,
    progress: &Progress,
    shared: &Shared,
    stage: watch::Receiver<Stage>,
) {
    let mut connection = pin!(connection);
    let mut aborting = pin!(reached(stage.clone(), Stage::Aborting));
    let mut draining = pin!(reached(stage.clone(), Stage::Draining));
    let mut stage = stage;
    let (mut registered, mut drained) = (false, false);
    let ended = poll_fn(|context| {
        // Once registered, the two futures wake this task when they have something to say; until then
        // one atomic load a poll is enough, where polling them would take a lock that all
        // connections share. This comes first, so that the task's budget cannot be used up yet.
        //
        // The futures are woken one by one, so one of them may not know yet what the other was woken
        // for: what counts is the value, and from the first change on both are polled every time.
        if !registered || drained || stage.has_changed().unwrap_or(true) {
            registered = true;
            let is_over = aborting.as_mut().poll(context).is_ready();
            if !drained {
                let is_ending = draining.as_mut().poll(context).is_ready();
                drained = is_ending || *stage.borrow_and_update() != Stage::Serving;
                if drained {
                    connection.as_mut().drain();
                }
            }
            if is_over {
                return Poll::Ready(None);
            }
        }
        connection.as_mut().poll(context).map(Some)
    })
    .await;
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            // The answer was cut short by our own side: it must not look like its end.
            if error.is_user() {
                progress.reset();
            }
            if error.is_parse() {
                shared.stats.malformed.fetch_add(1, Relaxed);
            }
            // The kernel has the same patience, and may be a moment before us.
            if is_timeout_of_the_kernel(&error) && !progress.is_reset() && progress.is_busy() {
                shared.stats.stall_timeouts.fetch_add(1, Relaxed);
            }
            tracing::debug!(error = &error as &dyn Error, "a connection ended early");
        }
        None => {
            if progress.is_busy() {
                shared.stats.cut_short.fetch_add(1, Relaxed);
            }
            progress.reset();
        }
    }
}

/// Whether nothing of what was sent was acknowledged for as long as the socket was told to wait.
fn is_timeout_of_the_kernel(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error() == Some(rustix::io::Errno::TIMEDOUT.raw_os_error());
        }
        source = error.source();
    }
    false
}
