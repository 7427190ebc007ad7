//! What can go wrong between a store path on disk and its NAR.

use rustix::io::Errno;

use crate::nix::hash::Sha256;

/// Why a tree cannot be read, or is not what it should be. A `path` is relative to the store
/// directory or to the store path, for the log; it is no secret, but no client needs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The store path, or what was asked for in it, is not there.
    #[error("{path:?} is not there")]
    NotFound {
        /// What is missing.
        path: String,
    },
    /// A file or directory was removed while it was being read.
    #[error("{path:?} vanished while it was read")]
    Vanished {
        /// What was there before.
        path: String,
    },
    /// A file has become longer than it was when the NAR was planned.
    #[error("{path:?} grew from {expected} to {got} bytes while it was read")]
    Grown {
        /// The file.
        path: String,
        /// Its size in bytes before.
        expected: u64,
        /// Its size in bytes now.
        got: u64,
    },
    /// A file has become shorter than it was when the NAR was planned.
    #[error("{path:?} shrank from {expected} to {got} bytes while it was read")]
    Shrunk {
        /// The file.
        path: String,
        /// Its size in bytes before.
        expected: u64,
        /// Its size in bytes now, or how many could be read.
        got: u64,
    },
    /// Something became another kind of thing, such as a file a symlink.
    #[error("{path:?} was replaced while it was read")]
    Replaced {
        /// What was something else before.
        path: String,
    },
    /// A socket, pipe or device, which no NAR can hold.
    #[error("{path:?} is neither a file nor a directory nor a symlink")]
    SpecialFile {
        /// What it is.
        path: String,
    },
    /// A path asked for leads through a symlink, which is never followed.
    #[error("{path:?} leads through a symlink")]
    ThroughSymlink {
        /// The path asked for.
        path: String,
    },
    /// The tree is beyond [`Limits`](crate::nix::nar::Limits).
    #[error("{path:?} has {what}, more than any client could unpack")]
    BeyondLimits {
        /// Where the limit was met.
        path: String,
        /// Which one.
        what: &'static str,
    },
    /// The operating system says no. `EIO` from ZFS means a block that is damaged on disk.
    #[error("cannot {action} {path:?}: {errno}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: String,
        /// The answer.
        errno: Errno,
    },
    /// The bytes on disk are not those that the database has registered.
    #[error("the NAR has hash {got}, not {expected}")]
    HashMismatch {
        /// The NarHash that was expected.
        expected: Sha256,
        /// That of the bytes on disk.
        got: Sha256,
    },
    /// The NAR is longer or shorter than expected, or than the range asked for.
    #[error("the NAR has {got} bytes, not {expected}")]
    SizeMismatch {
        /// The size expected, in bytes.
        expected: u64,
        /// The size found, or the one at which it was clear that it is more.
        got: u64,
    },
    /// A reader thread panicked: a bug of ours, which must not become a clean short answer.
    #[error("a reader failed")]
    ReaderFailed,
}

impl TreeError {
    /// Names what an error means for something that was there a moment ago.
    pub(super) fn at(path: &[u8], action: &'static str, errno: Errno) -> Self {
        let path = quote(path);
        match errno {
            Errno::NOENT => Self::Vanished { path },
            Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO => Self::Replaced { path },
            errno => Self::Io { action, path, errno },
        }
    }
}

/// A path for a message, never more than a line of it.
pub(super) fn quote(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(300)]).into_owned()
}
