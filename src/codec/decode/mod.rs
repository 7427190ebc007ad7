//! Decoding what arrives, with limits.
//!
//! [`Decoder`] watches over one [`Engine`], which knows a format and nothing of readers: bytes in,
//! bytes out. A decoder that is pushed instead of pulled can be put on top of the same engines.
//!
//! What is promised, whatever the format:
//! - Input that ends early is an error, and so is anything that follows it. Formats that allow
//!   several streams in a row (all but `none`) are read to the last one.
//! - Nothing comes out beyond [`Limits::max_output`], and memory stays within
//!   [`Limits::max_memory`], for the zstd window or the xz dictionary, and a MiB or two of buffers
//!   (bzip2 and lz4, which have no such choice, take up to 4 and 9 MiB).
//! - Checksums are verified wherever the format has them.

mod bzip2;
mod engine;
mod gzip;
mod lz4;
mod xxh32;
mod xz;
mod zstd;

use std::io::{self, BufRead, Read};

use engine::{Engine, Fault, Plain, Progress};

use super::{CodecError, Compression};

/// What a decoder may give and take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that may come out: the declared NarSize where there is one.
    pub max_output: u64,
    /// The most bytes that may come out for each that went in, once more than [`RATIO_FREE`]
    /// came out.
    pub max_ratio: u32,
    /// The largest zstd window, to the power of two below, and the most that an xz decoder may
    /// take, in bytes.
    pub max_memory: u64,
}

/// Decodes a compressed reader.
///
/// Its errors are [`io::Error`]s: either those of the reader below, or a [`CodecError`] that
/// [`CodecError::of`] finds. After a [`CodecError`] every further read gives it again. The input is
/// sound only when a read has given `Ok(0)`; one who stops earlier has not seen its end.
pub struct Decoder<R> {
    reader: R,
    compression: Compression,
    engine: Box<dyn Engine + Send>,
    limits: Limits,
    state: State,
    /// Bytes taken from the reader.
    input: u64,
    /// Bytes that came out, those that were refused included.
    output: u64,
    /// What [`Self::input`] was when something last came out.
    input_at_output: u64,
    /// What [`Self::output`] was when a frame last ended.
    output_at_end: u64,
    /// Frames with and without content.
    full_frames: u64,
    empty_frames: u64,
    /// Where frames ended, as [`Self::record_frames`] asks for it.
    frame_ends: Option<FrameEnds>,
}

/// The ends of frames, each as bytes of input and of output, up to a number of them.
struct FrameEnds {
    ends: Vec<(u64, u64)>,
    most: usize,
}

/// How many bytes may come out before the ratio is looked at.
pub const RATIO_FREE: u64 = 64 << 20;

/// [`Limits::max_ratio`] unless told otherwise. Real NARs stay far below it, disk images of mostly
/// nothing come near it; the bombs of zstd reach 30,000, of xz 7,000.
pub const DEFAULT_MAX_RATIO: u32 = 1_000;

/// [`Limits::max_memory`] unless told otherwise: zstd's own default, a window of 2^27, which is what
/// `zstd --ultra -22` needs; `xz -9` needs 65 MiB.
pub const DEFAULT_MAX_MEMORY: u64 = 128 << 20;

impl Limits {
    /// At most `max_output` bytes, at the usual ratio and in the usual memory.
    pub fn output(max_output: u64) -> Self {
        Self { max_output, max_ratio: DEFAULT_MAX_RATIO, max_memory: DEFAULT_MAX_MEMORY }
    }
}

impl<R: BufRead> Decoder<R> {
    /// Starts to decode `reader`, which is read only when something is read from the decoder.
    ///
    /// Fails with [`CodecError::Unsupported`] for [`Compression::Brotli`], which no `nix copy` of
    /// today sends unless told to; with [`CodecError::MemoryLimit`] when there is no memory.
    pub fn new(compression: Compression, reader: R, limits: Limits) -> Result<Self, CodecError> {
        let engine: Result<Box<dyn Engine + Send>, Fault> = match compression {
            Compression::None => Ok(Box::new(Plain)),
            Compression::Zstd => {
                zstd::Zstd::new(limits.max_memory).map(|engine| Box::new(engine) as _)
            }
            Compression::Xz => xz::Xz::new(limits.max_memory).map(|engine| Box::new(engine) as _),
            Compression::Bzip2 => Ok(Box::new(bzip2::Bzip2::new())),
            Compression::Gzip => Ok(Box::new(gzip::Gzip::new())),
            Compression::Lz4 => Ok(Box::new(lz4::Lz4::new())),
            Compression::Brotli => Err(Fault::Refused(CodecError::Unsupported("brotli"))),
        };
        let engine = engine.map_err(|fault| fault.at(compression, 0, false))?;
        let progress = match compression {
            Compression::None => Progress::Between,
            _ => Progress::Inside,
        };
        Ok(Self {
            reader,
            compression,
            engine,
            limits,
            state: State::Running(progress),
            input: 0,
            output: 0,
            input_at_output: 0,
            output_at_end: 0,
            full_frames: 0,
            empty_frames: 0,
            frame_ends: None,
        })
    }

    /// Has it remember where frames end, the first `most` of them.
    pub fn record_frames(mut self, most: usize) -> Self {
        self.frame_ends = Some(FrameEnds { ends: Vec::new(), most });
        self
    }

    /// Where frames (or members, or streams) ended so far, each as bytes of input and of output, if
    /// that was asked for.
    pub fn frame_ends(&self) -> &[(u64, u64)] {
        self.frame_ends.as_ref().map_or(&[], |frames| &frames.ends)
    }

    /// How many compressed bytes were taken from the reader so far.
    pub fn input_bytes(&self) -> u64 {
        self.input
    }

    /// How many bytes came out so far. After [`CodecError::OutputTooLarge`] it counts bytes that
    /// were not given to anybody, but never more than one beyond the limit.
    pub fn output_bytes(&self) -> u64 {
        self.output
    }

    /// Gives back the reader.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// Decodes until something comes out. `Ok(0)` is the sound end.
    fn decode(&mut self, progress: Progress, buffer: &mut [u8]) -> io::Result<usize> {
        // One byte beyond the limit is decoded, to know that there is one, and never given out.
        let room = self.limits.max_output.saturating_sub(self.output).saturating_add(1);
        let room = usize::try_from(room).map_or(buffer.len(), |room| room.min(buffer.len()));
        let buffer = &mut buffer[..room];

        let mut progress = progress;
        let mut stalls = 0;
        loop {
            let input = self.reader.fill_buf()?;
            let at_end = input.is_empty();
            if at_end && progress != Progress::Inside {
                self.state = State::Finished;
                return Ok(0);
            }
            let is_first = self.full_frames + self.empty_frames == 0;
            let step = self
                .engine
                .step(input, buffer)
                .map_err(|fault| fault.at(self.compression, self.input, !is_first))?;
            self.reader.consume(step.consumed);
            self.input += step.consumed as u64;
            self.output += step.produced as u64;
            progress = step.progress;
            self.state = State::Running(progress);
            self.check(&step)?;
            if step.produced > 0 {
                return Ok(step.produced);
            }
            if at_end && progress == Progress::Inside {
                let offset = self.input;
                return Err(CodecError::Truncated { compression: self.compression, offset }.into());
            }
            // An engine may need a step or two to change its mind; more, and it is stuck.
            stalls = if step.consumed == 0 { stalls + 1 } else { 0 };
            if stalls > MAX_STALLS {
                let fault = Fault::Corrupt("the decoder does not go on");
                return Err(fault.at(self.compression, self.input, false).into());
            }
        }
    }

    /// Holds what came out, and what did not, against the limits.
    fn check(&mut self, step: &engine::Step) -> Result<(), CodecError> {
        let Limits { max_output, max_ratio, .. } = self.limits;
        if self.output > max_output {
            return Err(CodecError::OutputTooLarge { max: max_output });
        }
        if self.output > RATIO_FREE && self.output / u64::from(max_ratio.max(1)) > self.input {
            let (input, output) = (self.input, self.output);
            return Err(CodecError::RatioExceeded { input, output, max: max_ratio });
        }
        if step.produced > 0 {
            self.input_at_output = self.input;
        }
        let idle = self.input - self.input_at_output;
        if idle > MAX_IDLE_INPUT {
            return Err(CodecError::IdleInput { input: idle });
        }
        if step.progress == Progress::Ended {
            if let Some(FrameEnds { ends, most }) = &mut self.frame_ends
                && ends.len() < *most
            {
                ends.push((self.input, self.output));
            }
            if self.output == self.output_at_end {
                self.empty_frames += 1;
            } else {
                self.full_frames += 1;
            }
            self.output_at_end = self.output;
            if self.empty_frames > self.full_frames + MAX_EMPTY_FRAMES {
                return Err(CodecError::EmptyFrames { count: self.empty_frames });
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let result = match &self.state {
            State::Running(progress) => self.decode(*progress, buffer),
            State::Finished => Ok(0),
            State::Failed(error) => Err(error.clone().into()),
        };
        if let Err(error) = &result
            && let Some(error) = CodecError::of(error)
        {
            self.state = State::Failed(error.clone());
        }
        result
    }
}

enum State {
    Running(Progress),
    Finished,
    Failed(CodecError),
}

/// The most input that may pass in a row with nothing coming out. The blocks of all formats are
/// smaller by far; what comes near it is a skippable frame with a seek table of another hand.
const MAX_IDLE_INPUT: u64 = 16 << 20;

/// How many more frames without than with content there may be. `pzstd` writes a skippable frame
/// before each frame.
const MAX_EMPTY_FRAMES: u64 = 1024;

/// How many steps in a row may neither take nor give anything.
const MAX_STALLS: u32 = 4;

#[cfg(test)]
mod tests;
