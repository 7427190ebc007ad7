//! Why an upload was not taken.

use std::io;

use crate::bank::{is_out_of_space, is_read_error};
use crate::codec::CodecError;
use crate::nix::nar::NarError;

/// Why an upload was not taken. Each message is one line for whoever sent it, and names no path of
/// this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The bytes stopped coming before their end.
    #[error("the upload broke off: {0}")]
    Read(#[source] io::Error),
    /// It does not decode, or not within the limits.
    #[error("the upload was refused: {0}")]
    Decode(#[source] CodecError),
    /// What it decodes to is not a NAR, or not one within the limits.
    #[error("the upload was refused: {0}")]
    Nar(#[source] NarError),
    /// The file system is full, or the quota used up.
    #[error("there is no space left for it: {0}")]
    NoSpace(#[source] io::Error),
    /// It could not be written, or read again, for another reason.
    #[error("it could not be stored: {0}")]
    Storage(#[source] io::Error),
}

/// Whose fault it is, and of what kind; what an answer's status is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// More bytes, memory or files than are allowed.
    TooLarge,
    /// Not what it claims to be.
    Invalid,
    /// A form that is not read here.
    Unsupported,
    /// What it needs is not here, or something else is here already.
    Conflict,
    /// The policy of the cache does not take it.
    Untrusted,
    /// There is no such upload.
    NotFound,
    /// It cannot be taken now.
    Unavailable,
    /// There is no room here.
    NoSpace,
    /// Whoever sent it went away.
    Aborted,
    /// Something failed here.
    Failed,
}

impl IngestError {
    /// The error for something that failed at our own files.
    pub fn storage(error: io::Error) -> Self {
        if is_out_of_space(&error) { Self::NoSpace(error) } else { Self::Storage(error) }
    }

    /// The error that a [`crate::codec::Decoder`] gave.
    pub(super) fn from_decoder(error: io::Error) -> Self {
        let error = match error.downcast::<StorageFailure>() {
            Ok(StorageFailure(error)) => return Self::storage(error),
            Err(error) => error,
        };
        match CodecError::of(&error) {
            Some(error) => Self::Decode(error.clone()),
            None => Self::Read(error),
        }
    }

    /// Whether it is of the bytes, and not of writing them or of anything that passes. What the disk does not give back
    /// is as good as other bytes.
    pub fn is_of_content(&self) -> bool {
        match self {
            Self::Storage(error) => is_read_error(error),
            _ => matches!(self.class(), Class::TooLarge | Class::Invalid | Class::Unsupported),
        }
    }

    /// Whose fault it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Read(_) => Class::Aborted,
            Self::Decode(error) => match error {
                CodecError::OutputTooLarge { .. }
                | CodecError::RatioExceeded { .. }
                | CodecError::WindowTooLarge { .. }
                | CodecError::MemoryLimit { .. } => Class::TooLarge,
                CodecError::Unsupported(_) => Class::Unsupported,
                CodecError::Corrupt { .. }
                | CodecError::Truncated { .. }
                | CodecError::TrailingBytes { .. }
                | CodecError::IdleInput { .. }
                | CodecError::EmptyFrames { .. } => Class::Invalid,
            },
            Self::Nar(NarError::TooLarge { .. } | NarError::TooManyEntries { .. }) => {
                Class::TooLarge
            }
            Self::Nar(_) => Class::Invalid,
            Self::NoSpace(_) => Class::NoSpace,
            Self::Storage(_) => Class::Failed,
        }
    }
}

/// An error of our own files that has to pass through a reader of the client's bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StorageFailure(#[source] pub(super) io::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        use rustix::io::Errno;
        for (errno, class) in [
            (Errno::NOSPC, Class::NoSpace),
            (Errno::DQUOT, Class::NoSpace),
            (Errno::FBIG, Class::NoSpace),
            (Errno::IO, Class::Failed),
        ] {
            assert_eq!(IngestError::storage(errno.into()).class(), class, "{errno}");
            let passed = io::Error::other(StorageFailure(errno.into()));
            assert_eq!(IngestError::from_decoder(passed).class(), class, "{errno}");
            // The same from the client's side is the client's.
            assert_eq!(IngestError::from_decoder(errno.into()).class(), Class::Aborted);
        }
    }

    #[test]
    fn every_message_is_one_line() {
        for error in [
            IngestError::Read(io::ErrorKind::ConnectionReset.into()),
            IngestError::Decode(CodecError::RatioExceeded { input: 1, output: 5000, max: 1000 }),
            IngestError::Nar(NarError::IllegalName { offset: 7, name: "a\nb".into() }),
            IngestError::NoSpace(io::ErrorKind::StorageFull.into()),
        ] {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
