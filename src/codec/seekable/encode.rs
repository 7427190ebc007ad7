//! Writing the seekable form.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::Receiver;

use super::pool::{Buffers, Done, FrameCompressor, Pool, threads_ended};
use super::table::{Builder, SeekTable};
use super::{FRAME_SIZE, LEVEL, MAX_FRAME_SIZE, MAX_FRAMES, MAX_IN_FLIGHT, MIN_FRAME_SIZE};

/// How a file is compressed. The same settings give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    level: i32,
    frame_size: u32,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// zstd has no such level, or takes it for "the default".
    #[error("zstd has no compression level {0}; use 1 to 19, or -7 to -1 for more speed")]
    Level(i32),
    /// Smaller than [`MIN_FRAME_SIZE`] or larger than [`MAX_FRAME_SIZE`].
    #[error("frames of {0} bytes; {MIN_FRAME_SIZE} to {MAX_FRAME_SIZE} are allowed")]
    FrameSize(u32),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The size of the whole file in bytes: a narinfo's `FileSize`.
    pub compressed_size: u64,
    /// How many bytes were pushed: a narinfo's `NarSize`.
    pub uncompressed_size: u64,
    /// The seek table as it was written, so that the file can be read at once.
    pub table: SeekTable,
}

/// Takes bytes and writes the seekable form of them.
///
/// Bytes are pushed through [`Write`], in pieces of any size. A file is complete only after
/// [`Self::finish`]; after an error there is none, and every further call fails.
/// [`Write::flush`] passes on frames that are done, but never ends a frame early.
///
/// Memory: about twice the frame size for each frame in flight, which is one without a pool, and
/// with it one more than the pool has threads but at most [`MAX_IN_FLIGHT`]; and once the frame size.
pub struct Encoder<W: Write> {
    output: Output<W>,
    settings: Settings,
    /// The content of the next frame, shorter than a frame between calls.
    pending: Vec<u8>,
    pushed: u64,
    compress: Compress,
    /// Set while something is done that must not fail half-way, and so left set when it did.
    failed: bool,
}

impl Settings {
    /// Checks a compression level (1 to 19, or -7 to -1) and a frame size in bytes.
    pub fn new(level: i32, frame_size: u32) -> Result<Self, SettingsError> {
        if !(-7..=19).contains(&level) || level == 0 {
            return Err(SettingsError::Level(level));
        }
        if !(MIN_FRAME_SIZE..=MAX_FRAME_SIZE).contains(&frame_size) {
            return Err(SettingsError::FrameSize(frame_size));
        }
        Ok(Self { level, frame_size })
    }

    /// The level given, with frames of [`FRAME_SIZE`].
    pub fn with_level(level: i32) -> Result<Self, SettingsError> {
        Self::new(level, FRAME_SIZE)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: LEVEL, frame_size: FRAME_SIZE }
    }
}

impl<W: Write> Encoder<W> {
    /// Compresses on the thread that pushes.
    ///
    /// Fails when there is no memory for a compression context.
    pub fn new(writer: W, settings: Settings) -> io::Result<Self> {
        Ok(Self::start(writer, settings, Compress::Here(FrameCompressor::new()?)))
    }

    /// Compresses on the threads of `pool`; the thread that pushes writes.
    ///
    /// At most one frame more than the pool has threads is in flight, and at most
    /// [`MAX_IN_FLIGHT`]; pushing waits beyond that.
    pub fn with_pool(writer: W, settings: Settings, pool: Pool) -> Self {
        let in_flight = VecDeque::with_capacity(MAX_IN_FLIGHT.min(pool.threads().get() + 1));
        Self::start(writer, settings, Compress::There { pool, in_flight })
    }

    fn start(writer: W, settings: Settings, compress: Compress) -> Self {
        let output = Output { writer, written: 0, table: Builder::default(), spare: vec![] };
        Self { output, settings, pending: Vec::new(), pushed: 0, compress, failed: false }
    }

    /// Writes what is left and the seek table, flushes, and gives the writer back.
    pub fn finish(mut self) -> io::Result<(Summary, W)> {
        self.check_sound()?;
        if !self.pending.is_empty() || self.pushed == 0 {
            self.end_frame()?;
        }
        if let Compress::There { in_flight, .. } = &mut self.compress {
            while let Some(result) = in_flight.pop_front() {
                self.output.frame(receive(&result)?)?;
            }
        }
        let Output { mut writer, written, table, .. } = self.output;
        let (bytes, table) = table.finish().map_err(io::Error::other)?;
        writer.write_all(&bytes)?;
        writer.flush()?;
        let compressed_size = written + bytes.len() as u64;
        let uncompressed_size = self.pushed;
        Ok((Summary { compressed_size, uncompressed_size, table }, writer))
    }

    /// Compresses what is pending as one frame, or hands it to the pool.
    fn end_frame(&mut self) -> io::Result<()> {
        if let Compress::There { pool, in_flight } = &mut self.compress
            && in_flight.len() >= MAX_IN_FLIGHT.min(pool.threads().get() + 1)
            && let Some(oldest) = in_flight.pop_front()
        {
            self.output.frame(receive(&oldest)?)?;
        }
        let mut buffers = self.output.spare.pop().unwrap_or_default();
        mem::swap(&mut buffers.content, &mut self.pending);
        self.pending.clear();
        match &mut self.compress {
            Compress::Here(compressor) => {
                compressor.compress(self.settings.level, &mut buffers)?;
                self.output.frame(buffers)
            }
            Compress::There { pool, in_flight } => {
                in_flight.push_back(pool.submit(self.settings.level, buffers)?);
                Ok(())
            }
        }
    }

    fn check_sound(&self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the encoder failed before; the file is not complete"));
        }
        Ok(())
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_sound()?;
        let frame_size = self.settings.frame_size as usize;
        // Grows with the content: a small NAR must not cost a frame's worth of memory.
        let taken = bytes.len().min(frame_size - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        self.pushed += taken as u64;
        if self.pending.len() == frame_size {
            self.failed = true;
            self.end_frame()?;
            self.failed = false;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check_sound()?;
        self.output.writer.flush()
    }
}

/// Where frames are compressed.
enum Compress {
    Here(FrameCompressor),
    There { pool: Pool, in_flight: VecDeque<Receiver<Done>> },
}

/// Where compressed frames go, in order.
struct Output<W> {
    writer: W,
    /// Bytes of the frames so far.
    written: u64,
    table: Builder,
    /// Buffers that are free to be used again.
    spare: Vec<Buffers>,
}

impl<W: Write> Output<W> {
    fn frame(&mut self, buffers: Buffers) -> io::Result<()> {
        if self.table.frames() >= MAX_FRAMES as usize {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more frames than allowed"));
        }
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        self.table.push(size(&buffers.compressed)?, size(&buffers.content)?);
        self.written += buffers.compressed.len() as u64;
        self.writer.write_all(&buffers.compressed)?;
        self.spare.push(buffers);
        Ok(())
    }
}

fn receive(result: &Receiver<Done>) -> Done {
    result.recv().map_err(|_| threads_ended())?
}
