//! Threads that compress frames, shared by all encoders that are given them.

use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zstd::zstd_safe::{self, CCtx, CParameter};

/// A fixed number of threads that compress frames for any number of encoders.
///
/// The pool bounds the processors that compression takes; each encoder bounds how many of its own
/// frames wait here (see [`super::Encoder::with_pool`]). Frames are taken in the order in which
/// they were handed in. The threads end when the last clone and the last encoder are gone.
#[derive(Clone)]
pub struct Pool {
    jobs: Sender<Job>,
    threads: NonZeroUsize,
}

impl Pool {
    /// Starts the threads. Each holds a compression context of some MiB while it lives.
    ///
    /// Fails when the system gives no thread.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads.get() {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("compress-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Self { jobs, threads })
    }

    /// How many threads there are.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Hands in a frame; its result is received, once, from what is returned.
    pub(super) fn submit(&self, level: i32, buffers: Buffers) -> io::Result<Receiver<Done>> {
        let (reply, result) = sync_channel(1);
        self.jobs.send(Job { level, buffers, reply }).map_err(|_| threads_ended())?;
        Ok(result)
    }
}

/// What the encoder says when a thread of the pool is gone.
pub(super) fn threads_ended() -> io::Error {
    io::Error::other("the compressing threads have ended")
}

/// A frame's content and its compressed form. Both are used again for later frames.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) content: Vec<u8>,
    pub(super) compressed: Vec<u8>,
}

/// What comes back for a frame: its buffers, with `compressed` filled.
pub(super) type Done = io::Result<Buffers>;

struct Job {
    level: i32,
    buffers: Buffers,
    reply: SyncSender<Done>,
}

/// One compression context, used for frame after frame.
pub(super) struct FrameCompressor {
    context: CCtx<'static>,
}

impl FrameCompressor {
    /// Fails when there is no memory for the context.
    pub(super) fn new() -> io::Result<Self> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        for parameter in [CParameter::ChecksumFlag(true), CParameter::ContentSizeFlag(true)] {
            context.set_parameter(parameter).map_err(zstd_error)?;
        }
        Ok(Self { context })
    }

    /// Compresses `content` into `compressed` as one frame.
    pub(super) fn compress(&mut self, level: i32, buffers: &mut Buffers) -> io::Result<()> {
        self.context.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
        buffers.compressed.clear();
        buffers.compressed.reserve_exact(zstd_safe::compress_bound(buffers.content.len()));
        self.context.compress2(&mut buffers.compressed, &buffers.content).map_err(zstd_error)?;
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut compressor = FrameCompressor::new();
    loop {
        // The lock is held while waiting; the others wait for the lock instead.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { level, mut buffers, reply }) = job else { return };
        let done = match &mut compressor {
            Ok(compressor) => compressor.compress(level, &mut buffers).map(|()| buffers),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // An encoder that was dropped no longer listens, and nobody misses its frame.
        let _ = reply.send(done);
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", zstd_safe::get_error_name(code)))
}
