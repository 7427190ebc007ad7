//! The threads that walk, read and hash for all streams.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::core::Core;
use super::plan::SEGMENT;
use crate::source::buffer::BufferPool;

/// A fixed number of threads that do all blocking work of all [`NarStream`](super::NarStream)s,
/// turn by turn. A stream whose consumer is slow holds some buffers, but no thread.
///
/// Its threads end when it is dropped. A stream keeps its pool.
#[derive(Debug)]
pub struct ReadPool {
    shared: Arc<Shared>,
}

/// What the threads know.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pub(super) buffers: Arc<BufferPool>,
}

/// Each entry is leave to do some jobs of that stream.
#[derive(Default)]
struct Queue {
    streams: VecDeque<Arc<Core>>,
    idle: usize,
    closed: bool,
}

/// Buffers that stay allocated when no stream needs them: 64 are 17 MiB.
const IDLE_BUFFERS: usize = 64;

impl ReadPool {
    /// Starts `threads` threads. They mostly wait for the disk, so there should be more of them
    /// than cores: [`default_threads`](Self::default_threads).
    pub fn start(threads: usize) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            buffers: BufferPool::new(SEGMENT, IDLE_BUFFERS),
        });
        // Made first, so that an error below ends the threads that did start.
        let pool = Arc::new(Self { shared: shared.clone() });
        for number in 0..threads.max(1) {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("nar-read-{number}"))
                .spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Four for each core, between 8 and 32: enough to keep a disk's queue filled, few enough not
    /// to thrash it.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(8, |cores| (cores.get() * 4).clamp(8, 32))
    }

    /// How many buffers of 272 KiB streams and the chunks from them hold now, for the metrics.
    pub fn buffers_in_use(&self) -> usize {
        self.shared.buffers.in_use()
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for ReadPool {
    /// Does not wait for the threads: one may be waiting for a dead disk.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        // Streams keep their pool, so these have no consumer any more; and they know the queue, so
        // that together they would stay for ever.
        let rubbish = std::mem::take(&mut queue.streams);
        drop(queue);
        drop(rubbish);
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// Lets a thread do a job of `stream`.
    pub(super) fn submit(&self, stream: Arc<Core>) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.streams.push_back(stream);
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return;
            }
            match queue.streams.pop_front() {
                Some(stream) => {
                    drop(queue);
                    stream.work();
                    queue = self.lock();
                }
                None => {
                    queue.idle += 1;
                    queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    queue.idle -= 1;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} streams, {} idle threads", self.streams.len(), self.idle)
    }
}
