//! Why compressed bytes were refused.

use std::io;

use super::Compression;

/// Why compressed bytes were refused. Offsets count bytes of the compressed input.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// It decodes to more than the limit.
    #[error("more than {max} bytes come out")]
    OutputTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// It decodes to more than so many times its own size, beyond what small inputs may.
    #[error("{input} bytes decode to {output}, more than {max} times as many")]
    RatioExceeded {
        /// Bytes read.
        input: u64,
        /// Bytes that came out.
        output: u64,
        /// The limit.
        max: u32,
    },
    /// It is not what it claims to be.
    #[error("damaged {compression} at byte {offset}: {reason}")]
    Corrupt {
        /// What it claims to be.
        compression: Compression,
        /// Where the decoder stopped.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// It ends before its end.
    #[error("{compression} ends too early, after {offset} bytes")]
    Truncated {
        /// What it claims to be.
        compression: Compression,
        /// How long it is.
        offset: u64,
    },
    /// Something else follows it.
    #[error("bytes that are not {compression} follow it, at byte {offset}")]
    TrailingBytes {
        /// What came before.
        compression: Compression,
        /// Where the rest begins, at the latest.
        offset: u64,
    },
    /// Decoding needs a larger window than is allowed.
    #[error("the window is larger than 2^{max_log} bytes")]
    WindowTooLarge {
        /// The limit as a power of two.
        max_log: u32,
    },
    /// Decoding needs more memory than is allowed, or than there is.
    #[error("decoding needs more than the {max} bytes of memory allowed")]
    MemoryLimit {
        /// The limit in bytes.
        max: u64,
    },
    /// Input goes on and on and nothing comes out: skippable frames, padding, endless headers.
    #[error("{input} bytes were read in a row and nothing came out")]
    IdleInput {
        /// Bytes read since something came out.
        input: u64,
    },
    /// More empty frames (or members, or streams) than any encoder writes.
    #[error("{count} frames held nothing")]
    EmptyFrames {
        /// How many there were.
        count: u64,
    },
    /// A compression, or something in one, that is not read here.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}

impl CodecError {
    /// The error inside an [`io::Error`] that a [`super::Decoder`] gave, if it is one of these;
    /// otherwise the reader below it failed.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        let kind = match error {
            CodecError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            CodecError::Unsupported(_) => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
