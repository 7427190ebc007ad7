//! A NAR as its consumer sees it.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use super::core::Core;
use super::plan::Planner;
use super::{ReadPool, StoreTree, TreeError};
use crate::nix::hash::Sha256;

/// What the whole NAR must come to, from the Nix database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The SHA-256 of the NAR.
    pub nar_hash: Sha256,
    /// Its size in bytes.
    pub nar_size: u64,
}

/// The bytes of a NAR, or of a range of it, as chunks of up to 272 KiB.
///
/// When it is dropped its work stops after the segments that are being read.
#[derive(Debug)]
pub struct NarStream {
    core: Arc<Core>,
    /// Keeps the threads while there is a stream.
    _pool: Arc<ReadPool>,
}

impl NarStream {
    /// Starts to read the NAR of `tree`, or `range` of it. Returns at once, and never blocks.
    ///
    /// With `expected`, the whole NAR is hashed on the way and its last chunk held back until hash
    /// and size are right; otherwise the last item is an error, upon which an HTTP server must
    /// reset the connection. A part of a NAR cannot be verified.
    ///
    /// Whether the tree is there at all is known with the first item: await that before answering.
    pub fn start(
        pool: &Arc<ReadPool>,
        tree: StoreTree,
        range: Option<Range<u64>>,
        expected: Option<Expected>,
    ) -> Self {
        let range = range.unwrap_or(0..u64::MAX);
        let whole = range.start == 0
            && (range.end == u64::MAX || expected.is_some_and(|whole| range.end == whole.nar_size));
        let expected = expected.filter(|_| whole);
        let range = if whole { 0..u64::MAX } else { range };
        let planner = Planner::new(tree, range, expected.map(|whole| whole.nar_size));
        Self { core: Core::start(pool.shared(), planner, expected), _pool: pool.clone() }
    }

    /// Gives the next chunk, never empty; `None` after the last one, and after an error.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TreeError>>> {
        self.core.poll(context)
    }

    /// [`poll_next`](Self::poll_next) for `async` code. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, TreeError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`poll_next`](Self::poll_next) for a thread that may block.
    pub fn next_blocking(&mut self) -> Option<Result<Bytes, TreeError>> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match self.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(item) => return item,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

#[cfg(test)]
impl NarStream {
    pub(super) fn core(&self) -> Arc<Core> {
        self.core.clone()
    }
}

impl Drop for NarStream {
    fn drop(&mut self) {
        self.core.abandon();
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
