//! What all formats have in common.

use crate::codec::{CodecError, Compression};

/// The decoder of one format: bytes in, bytes out, no reader, no limits on the whole.
pub(super) trait Engine {
    /// Takes some of `input` and writes some of `output`, which is not empty.
    ///
    /// `input` is empty only at its end and inside a frame; then what is held back comes out.
    /// After an error the engine is not used again.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault>;
}

/// What a step did.
pub(super) struct Step {
    /// Bytes of input that were taken.
    pub(super) consumed: usize,
    /// Bytes of output that were written.
    pub(super) produced: usize,
    /// Where in the format it stopped.
    pub(super) progress: Progress,
}

/// Where in its format an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// In a frame: input must go on.
    Inside,
    /// A frame has just ended, and all of it came out: input may end or go on with another.
    Ended,
    /// Not in a frame: input may end.
    Between,
}

/// Why an engine cannot go on.
pub(super) enum Fault {
    /// These bytes do not begin a frame of this format.
    NotThisFormat,
    /// They are not valid.
    Corrupt(&'static str),
    /// They are valid, and refused.
    Refused(CodecError),
}

impl Fault {
    /// The error for a fault at `offset`, after a whole frame or not.
    pub(super) fn at(self, compression: Compression, offset: u64, after_frame: bool) -> CodecError {
        match self {
            Self::NotThisFormat if after_frame => CodecError::TrailingBytes { compression, offset },
            Self::NotThisFormat => {
                CodecError::Corrupt { compression, offset, reason: "it does not begin as such" }
            }
            Self::Corrupt(reason) => CodecError::Corrupt { compression, offset, reason },
            Self::Refused(error) => error,
        }
    }
}

/// Compression `none`: what goes in comes out.
pub(super) struct Plain;

impl Engine for Plain {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        let size = input.len().min(output.len());
        output[..size].copy_from_slice(&input[..size]);
        Ok(Step { consumed: size, produced: size, progress: Progress::Between })
    }
}

/// Collects the bytes of a field that may be cut anywhere.
#[derive(Default)]
pub(super) struct Field {
    held: Vec<u8>,
}

impl Field {
    /// Takes from the front of `input` until there are `N` bytes; then gives them and is empty.
    pub(super) fn take<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        self.fill(input, N);
        let field = self.held.first_chunk().copied()?;
        self.held.clear();
        Some(field)
    }

    /// Takes from the front of `input` until there are `size` bytes; then lends them. The caller
    /// says when they are no longer needed, by [`Self::clear`].
    pub(super) fn lend(&mut self, input: &mut &[u8], size: usize) -> Option<&[u8]> {
        self.fill(input, size);
        self.held.get(..size)
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
    }

    fn fill(&mut self, input: &mut &[u8], size: usize) {
        let missing = size.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.held.extend_from_slice(taken);
        *input = rest;
    }
}
