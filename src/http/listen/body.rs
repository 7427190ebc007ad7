//! A request body that does not wait for ever.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// A request body whose sender may pause for so long only. The clock runs while somebody waits for
/// the next piece, so a slow disk on our side is never held against the client.
#[derive(Debug)]
pub struct PatientBody<B> {
    body: B,
    patience: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the last poll found nothing, so that `sleep` counts from there.
    waiting: bool,
}

/// Why a request body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError<E> {
    /// Nothing came for so long.
    #[error("the client sent nothing for {0:?}")]
    Stalled(Duration),
    /// The connection broke, or the framing is wrong.
    #[error(transparent)]
    Connection(E),
}

impl<B> PatientBody<B> {
    /// Wraps `body`; `patience` is the longest pause.
    pub fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, sleep: None, waiting: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PatientBody<B> {
    type Data = Bytes;
    type Error = RequestBodyError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Connection)));
        }
        let deadline = Instant::now() + this.patience;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !this.waiting {
            this.waiting = true;
            sleep.as_mut().reset(deadline);
        }
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(RequestBodyError::Stalled(this.patience)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, Full};

    use super::*;

    #[tokio::test]
    async fn a_body_that_comes_is_passed_on_whole() {
        let body = PatientBody::new(Full::new(Bytes::from_static(b"abc")), Duration::from_secs(9));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert!(PatientBody::new(Empty::<Bytes>::new(), Duration::ZERO).is_end_stream());
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_an_error() {
        let body = PatientBody::new(Never, Duration::from_millis(10));
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, RequestBodyError::Stalled(_)), "{error}");
    }

    /// A body of which nothing arrives.
    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
            Poll::Pending
        }
    }
}
