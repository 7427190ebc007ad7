//! How many requests are being worked on, each from the call of the service to the end of its body, and
//! whether whoever asked takes what he is given.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// What the services, the bodies and the socket of one connection tell each other. Over HTTP/1 all run in
/// the connection's task, one after the other; over HTTP/2 each answer has a task of its own, and a number
/// that is late by a moment makes a deadline late by a moment. So nothing stronger than `Relaxed` is needed.
#[derive(Debug)]
pub(super) struct Progress {
    /// Requests that are worked on.
    busy: AtomicUsize,
    /// Of these, those that have given a piece of their body and were not asked for the next one.
    given: AtomicUsize,
    /// When a body was last asked for its next piece, in milliseconds since `began`.
    asked: AtomicU64,
    began: Instant,
    reset: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            busy: AtomicUsize::new(0),
            given: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            began: Instant::now(),
            reset: AtomicBool::new(false),
        }
    }
}

impl Progress {
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) > 0
    }

    /// Since when none of the answers was asked for more, while all of them wait for that.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let given = self.given.load(Relaxed);
        (given > 0 && given >= self.busy.load(Relaxed))
            .then(|| self.began + Duration::from_millis(self.asked.load(Relaxed)))
    }

    fn note_asked(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(now, Relaxed);
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// Makes the connection end with a reset.
    pub(super) fn reset(&self) {
        self.reset.store(true, Relaxed);
    }
}

/// A service that notes while it is busy.
#[derive(Debug)]
pub(super) struct Tracked<S> {
    pub(super) service: S,
    pub(super) progress: Arc<Progress>,
}

impl<S, B> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<TrackedBody<B>>;
    type Error = S::Error;
    type Future = TrackedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // What follows a chunked body was not looked at by the head scanner (`head.rs`).
        let close = request.headers().contains_key(header::TRANSFER_ENCODING);
        self.progress.busy.fetch_add(1, Relaxed);
        let busy = Some(Busy { progress: self.progress.clone(), given: false });
        TrackedFuture { future: self.service.call(request), busy, close }
    }
}

/// A request that is worked on, until it is dropped.
#[derive(Debug)]
struct Busy {
    progress: Arc<Progress>,
    given: bool,
}

impl Busy {
    /// Notes whether the next step is that of whoever takes the body.
    fn set_given(&mut self, given: bool) {
        if given != self.given {
            self.given = given;
            match given {
                true => self.progress.given.fetch_add(1, Relaxed),
                false => self.progress.given.fetch_sub(1, Relaxed),
            };
        }
        self.progress.note_asked();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set_given(false);
        self.progress.busy.fetch_sub(1, Relaxed);
    }
}

pin_project! {
    /// The answer on its way.
    pub(super) struct TrackedFuture<F> {
        #[pin]
        future: F,
        busy: Option<Busy>,
        close: bool,
    }
}

impl<F, B, E> Future for TrackedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<TrackedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(context))?;
        if *this.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let busy = this.busy.take();
        Poll::Ready(Ok(response.map(|body| TrackedBody { body, busy })))
    }
}

pin_project! {
    /// The body of an answer; hyper drops it when its last byte is in the write buffer.
    pub(super) struct TrackedBody<B> {
        #[pin]
        body: B,
        busy: Option<Busy>,
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(context);
        if let Some(busy) = this.busy {
            busy.set_given(matches!(frame, Poll::Ready(Some(Ok(_)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
