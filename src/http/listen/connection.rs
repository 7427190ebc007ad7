//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::guard::Guard;
use super::socket::Socket;
use super::track::{Progress, Tracked};
use super::{Shared, Stage, reached};

/// Serves `socket` until either side ends it, or the server does.
pub(super) async fn serve<S, B>(
    socket: Socket,
    service: S,
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let progress = Arc::new(Progress::default());
    let stats = shared.stats.clone();
    let guard = Guard::new(socket, shared.deadlines, stats, progress.clone());
    let service = Tracked { service, progress: progress.clone() };
    let mut connection = pin!(shared.http.serve_connection(TokioIo::new(guard), service));
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
                    connection.as_mut().graceful_shutdown();
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
