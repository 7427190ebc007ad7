//! Whether a request is being worked on: from the call of the service to the end of its body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

/// What the service, the body and the socket of one connection tell each other. All three run in the
/// connection's task, one after the other, so nothing stronger than `Relaxed` is needed.
#[derive(Debug, Default)]
pub(super) struct Progress {
    busy: AtomicBool,
    reset: AtomicBool,
}

impl Progress {
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
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
        self.progress.busy.store(true, Relaxed);
        let busy = Some(Busy(self.progress.clone()));
        TrackedFuture { future: self.service.call(request), busy, close }
    }
}

/// Ends the busy time when it is dropped.
#[derive(Debug)]
struct Busy(Arc<Progress>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Relaxed);
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
        Poll::Ready(Ok(response.map(|body| TrackedBody { body, _busy: busy })))
    }
}

pin_project! {
    /// The body of an answer; hyper drops it when its last byte is in the write buffer.
    pub(super) struct TrackedBody<B> {
        #[pin]
        body: B,
        _busy: Option<Busy>,
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
