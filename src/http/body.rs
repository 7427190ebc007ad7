//! Bodies: what blocks is read on the blocking pool, a chunk at a time and one ahead, so that a
//! slow client holds a buffer or two and never a thread.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::source::chunks::{CHUNK, read_part};
use crate::source::growing::{GrowingFile, Progress};
use crate::source::{StoredFile, TransferError};

/// Chunks that are made by blocking.
pub trait Chunks: Iterator<Item = Result<Bytes, TransferError>> + Send + 'static {}

impl<I: Iterator<Item = Result<Bytes, TransferError>> + Send + 'static> Chunks for I {}

/// A body of chunks that are made on the blocking pool.
pub struct BlockingBody<I> {
    next: Option<Step<I>>,
    remaining: Option<u64>,
}

type Step<I> = JoinHandle<(I, Option<Result<Bytes, TransferError>>)>;

impl<I: Chunks> BlockingBody<I> {
    /// Begins to make the first chunk. `size` is what all chunks come to, where that is known.
    pub fn new(chunks: I, size: Option<u64>) -> Self {
        Self { next: Some(step(chunks)), remaining: size }
    }
}

fn step<I: Chunks>(mut chunks: I) -> Step<I> {
    tokio::task::spawn_blocking(move || {
        let chunk = chunks.next();
        (chunks, chunk)
    })
}

impl<I: Chunks> Body for BlockingBody<I> {
    type Data = Bytes;
    type Error = TransferError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransferError>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let made = ready!(Pin::new(next).poll(context));
        self.next = None;
        match made {
            Ok((chunks, Some(Ok(chunk)))) => {
                if let Some(remaining) = &mut self.remaining {
                    *remaining = remaining.saturating_sub(chunk.len() as u64);
                }
                if self.remaining != Some(0) {
                    self.next = Some(step(chunks));
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Ok((_, Some(Err(error)))) => Poll::Ready(Some(Err(error))),
            Ok((_, None)) => Poll::Ready(None),
            // The pool is gone: the process ends.
            Err(error) => Poll::Ready(Some(Err(TransferError::Read {
                path: "a body".into(),
                why: error.to_string(),
            }))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The bytes of a part of a file.
///
/// What the page cache holds is read where it is sent: the copy has to be made anyway, and handing
/// it to another thread and back adds to it (measured beside other loads, NARs of 180 kB: 1.16
/// CPU-s/GiB with the other thread, 0.96 without). What may need the disk is read on the blocking pool.
pub struct FileBody {
    file: Arc<StoredFile>,
    left: Range<u64>,
    reading: Option<JoinHandle<std::io::Result<Bytes>>>,
}

impl FileBody {
    /// `part` lies within the file.
    pub const fn new(file: Arc<StoredFile>, part: Range<u64>) -> Self {
        Self { file, left: part, reading: None }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = TransferError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransferError>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let offset = self.left.start;
        let size = usize::try_from(self.left.end - offset).unwrap_or(CHUNK).min(CHUNK);
        if self.reading.is_none() {
            if let Some(chunk) = self.file.read_if_cached(offset, size) {
                self.left.start += chunk.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            let file = Arc::clone(&self.file);
            let read = move || file.read_part(offset, size);
            self.reading = Some(tokio::task::spawn_blocking(read));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(Some(match read.map_err(std::io::Error::other).flatten() {
            Ok(chunk) => {
                self.left.start += chunk.len() as u64;
                Ok(Frame::data(chunk))
            }
            Err(error) => {
                self.left.start = self.left.end;
                tracing::error!("an answer was cut: a stored NAR: {error}");
                Err(TransferError::Read { path: "a stored NAR".into(), why: error.to_string() })
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end - self.left.start)
    }
}

/// No bytes, of a length that nobody knows: the body of an answer to HEAD where that of GET would
/// have no length. An empty body would claim that it has none.
pub struct UnknownLength;

impl Body for UnknownLength {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(None)
    }
}

/// A file that is still being written: what is written is sent, and the end only once all was right.
pub struct GrowingBody {
    file: Arc<GrowingFile>,
    progress: watch::Receiver<Progress>,
    sent: u64,
    state: Growing,
}

enum Growing {
    Idle,
    Waiting(Pin<Box<dyn Future<Output = watch::Receiver<Progress>> + Send>>),
    Reading(JoinHandle<std::io::Result<Bytes>>),
    Ended,
}

impl GrowingBody {
    /// Sends `file` from its beginning.
    pub fn new(file: Arc<GrowingFile>) -> Self {
        let progress = file.watch();
        Self { file, progress, sent: 0, state: Growing::Idle }
    }

    fn failed(&mut self, why: String) -> Poll<Option<Result<Frame<Bytes>, TransferError>>> {
        self.state = Growing::Ended;
        Poll::Ready(Some(Err(TransferError::Read { path: "a NAR that comes".into(), why })))
    }

    /// Decides what comes next, where nothing is under way.
    fn advance(&mut self) -> Result<(), String> {
        let progress = self.progress.borrow_and_update().clone();
        let (written, ended) = match progress {
            Progress::Growing(written) => (written, false),
            Progress::Done(size) => (size, true),
            Progress::Failed(why) => return Err(why.to_string()),
        };
        let ready = written.saturating_sub(self.sent);
        self.state = if ready == 0 && ended {
            Growing::Ended
        } else if ready == 0 {
            let mut progress = self.progress.clone();
            Growing::Waiting(Box::pin(async move {
                // An error means that the bake is gone; its last word is read next.
                let _ = progress.changed().await;
                progress
            }))
        } else {
            let (file, offset) = (Arc::clone(&self.file), self.sent);
            let size = usize::try_from(ready).unwrap_or(CHUNK).min(CHUNK);
            Growing::Reading(tokio::task::spawn_blocking(move || {
                read_part(file.file(), offset, size)
            }))
        };
        Ok(())
    }
}

impl Body for GrowingBody {
    type Data = Bytes;
    type Error = TransferError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransferError>>> {
        loop {
            match &mut self.state {
                Growing::Ended => return Poll::Ready(None),
                Growing::Idle => {
                    if let Err(why) = self.advance() {
                        return self.failed(why);
                    }
                }
                Growing::Waiting(waiting) => {
                    self.progress = ready!(waiting.as_mut().poll(context));
                    self.state = Growing::Idle;
                }
                Growing::Reading(reading) => match ready!(Pin::new(reading).poll(context)) {
                    Ok(Ok(chunk)) => {
                        self.sent += chunk.len() as u64;
                        self.state = Growing::Idle;
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                    Ok(Err(error)) => return self.failed(error.to_string()),
                    Err(error) => return self.failed(error.to_string()),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, Growing::Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use http_body_util::BodyExt;

    use super::*;
    use crate::source::chunks::FileChunks;

    #[tokio::test]
    async fn a_disk_that_fails_ends_a_body_in_an_error_never_cleanly() {
        // The first page of a process is mapped to nothing: reading it is a true EIO.
        let open = || File::open("/proc/self/mem").unwrap();
        let errno = rustix::io::pread(open(), &mut [0; 1], 0).unwrap_err();
        assert_eq!(errno, rustix::io::Errno::IO);
        let failing = || StoredFile::new(open());
        assert!(FileBody::new(Arc::new(failing()), 0..10).collect().await.is_err());
        let chunks = FileChunks::new(failing(), 0..10);
        assert!(BlockingBody::new(chunks, Some(10)).collect().await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_was_promised_ends_in_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nar");
        std::fs::write(&path, "short").unwrap();
        let file = Arc::new(StoredFile::new(File::open(&path).unwrap()));
        let whole = FileBody::new(Arc::clone(&file), 0..5).collect().await.unwrap().to_bytes();
        assert_eq!(whole, "short");
        assert!(FileBody::new(file, 0..10).collect().await.is_err());
    }
}
