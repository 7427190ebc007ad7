//! A request body that does not wait for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
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

/// What is still read of a body that was answered before its end, in bytes.
const READ_ON: usize = 64 << 20;
/// For how long.
const READ_ON_FOR: Duration = Duration::from_secs(10);

/// A request body that, dropped before its end, is read on for a while in the background.
///
/// A client that is refused in the middle of an upload would otherwise meet a reset instead of the
/// reason, and try again.
#[derive(Debug)]
pub struct ReadOn<B: Body<Data = Bytes> + Send + Unpin + 'static>(Option<B>);

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> ReadOn<B> {
    /// Wraps `body`.
    pub const fn new(body: B) -> Self {
        Self(Some(body))
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Body for ReadOn<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            // There is nothing more to be read.
            this.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for ReadOn<B> {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(READ_ON_FOR, async move {
            let mut read = 0;
            while read < READ_ON
                && let Some(Ok(frame)) = body.frame().await
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

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

    #[tokio::test]
    async fn a_body_that_is_dropped_before_its_end_is_read_on() {
        let (sender, mut seen) = tokio::sync::mpsc::channel(10);
        let left = (0..3).collect();
        let mut body = ReadOn::new(Pieces { left, sender });
        body.frame().await.unwrap().unwrap();
        drop(body);
        for piece in 0..3 {
            assert_eq!(seen.recv().await, Some(piece));
        }
    }

    /// A body that says what of it was taken.
    struct Pieces {
        left: std::collections::VecDeque<u8>,
        sender: tokio::sync::mpsc::Sender<u8>,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
            Poll::Ready(self.left.pop_front().map(|piece| {
                self.sender.try_send(piece).unwrap();
                Ok(Frame::data(Bytes::copy_from_slice(&[piece])))
            }))
        }
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
