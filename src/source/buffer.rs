//! Buffers that are used again and again.
//!
//! A fresh buffer of this size comes from mmap and costs a page fault for every 4 KiB on first
//! touch, then a munmap: more than reading a cached file into it. Buffers that come back are kept,
//! up to a bound, and the one that came back last is given out first, as it is still in the cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where buffers wait.
#[derive(Debug)]
pub(crate) struct BufferPool {
    size: usize,
    most: usize,
    idle: Mutex<Vec<Box<[u8]>>>,
    in_use: AtomicUsize,
}

/// A buffer that goes back to its pool when it is dropped. As a `[u8]` it is what was filled.
pub(crate) struct Buffer {
    data: Box<[u8]>,
    length: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// A pool of buffers of `size` bytes, which keeps at most `most` idle ones.
    pub(crate) fn new(size: usize, most: usize) -> Arc<Self> {
        Arc::new(Self { size, most, idle: Mutex::default(), in_use: AtomicUsize::new(0) })
    }

    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        self.in_use.fetch_add(1, Ordering::Relaxed);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let data = idle.unwrap_or_else(|| vec![0; self.size].into_boxed_slice());
        Buffer { data, length: 0, pool: self.clone() }
    }

    /// How many buffers are not idle.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }
}

impl Buffer {
    /// What is not filled yet.
    pub(crate) fn rest(&mut self) -> &mut [u8] {
        &mut self.data[self.length..]
    }

    /// Says that the first `length` bytes of [`rest`](Self::rest) are filled.
    pub(crate) fn advance(&mut self, length: usize) {
        self.length = (self.length + length).min(self.data.len());
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.data[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.in_use.fetch_sub(1, Ordering::Relaxed);
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.pool.most {
            idle.push(std::mem::take(&mut self.data));
        }
    }
}
