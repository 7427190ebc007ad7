//! Why something that was pushed was refused.

use crate::bank::{BankError, is_out_of_space};
use crate::nix::hash::Sha256;
use crate::nix::narinfo::NarInfoError;
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::source::cache::Unavailable;

use super::{Class, IngestError};

/// Why something that was pushed was refused. What a client is told is the text of it, which names no
/// file of the server's disk.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The NAR.
    #[error("{0}")]
    Nar(#[from] IngestError),
    /// The narinfo's own form.
    #[error("{0}")]
    NarInfo(#[from] NarInfoError),
    /// The narinfo or the commit says something else than what was computed.
    #[error("{path}: {field} is {declared}, but {computed} was computed of what came")]
    Mismatch {
        /// Which path.
        path: StorePath,
        /// Which field.
        field: &'static str,
        /// What the client said.
        declared: String,
        /// What the server computed.
        computed: String,
    },
    /// A narinfo under another path's name.
    #[error("the narinfo is of {theirs}, and not of the path {ours}")]
    OtherPath {
        /// By the URL.
        ours: StorePathHash,
        /// By the narinfo.
        theirs: StorePath,
    },
    /// A NAR under another hash than its own.
    #[error("the NAR hashes to {computed}, but was sent as {declared}")]
    OtherHash {
        /// By the URL or the request.
        declared: Sha256,
        /// As computed.
        computed: Sha256,
    },
    /// A NAR of another size than was promised.
    #[error("the NAR has {computed} bytes, but was sent as one of {declared}")]
    OtherSize {
        /// By the request.
        declared: u64,
        /// As computed.
        computed: u64,
    },
    /// The narinfo came without its NAR.
    #[error("{path}: its NAR is not here; send the NAR before the narinfo")]
    NoNar {
        /// Which path.
        path: StorePath,
    },
    /// A NAR that was here cannot be read now.
    #[error("{path}: its NAR cannot be read again: {why}")]
    NoNarToRead {
        /// Which path.
        path: StorePath,
        /// What is wrong.
        why: String,
    },
    /// References that are nowhere.
    #[error("{path}: {count} of its references are not here; push them first: {some}")]
    MissingReferences {
        /// Which path.
        path: StorePath,
        /// How many.
        count: usize,
        /// The first of them.
        some: String,
    },
    /// A reference that the NAR does not hold.
    #[error("{path}: the reference {reference} does not occur in the NAR")]
    NotReferred {
        /// Which path.
        path: StorePath,
        /// What it claims to refer to.
        reference: StorePath,
    },
    /// The NAR holds the hash of its own path, but the references do not say so.
    #[error("{path}: the NAR refers to its own path, which the references leave out")]
    SelfReference {
        /// Which path.
        path: StorePath,
    },
    /// A deriver that cannot be one.
    #[error("{path}: {deriver} is not its deriver: {why}")]
    Deriver {
        /// Which path.
        path: StorePath,
        /// What it claims to come from.
        deriver: StorePath,
        /// What is wrong.
        why: String,
    },
    /// A content address that is not that of the content.
    #[error("{path}: {why}")]
    ContentAddress {
        /// Which path.
        path: StorePath,
        /// What is wrong.
        why: String,
    },
    /// A signature by a key that we know, of something else.
    #[error("{path}: the signature by {key} is not of this path, hash, size and references")]
    BadSignature {
        /// Which path.
        path: StorePath,
        /// Whose signature.
        key: String,
    },
    /// The cache takes signed paths only.
    #[error(
        "{path}: this cache takes paths that a trusted key has signed, or content-addressed ones"
    )]
    Untrusted {
        /// Which path.
        path: StorePath,
    },
    /// Another build of the same path is here.
    #[error(
        "{path} is here with another content: NarHash {ours} stays, {theirs} is refused; \
         the build is not reproducible"
    )]
    Conflict {
        /// Which path.
        path: StorePath,
        /// What is here.
        ours: Sha256,
        /// What was pushed.
        theirs: Sha256,
    },
    /// An object of this name is here with other bytes.
    #[error("{what} is here with another content, which stays")]
    ObjectConflict {
        /// What it is.
        what: String,
    },
    /// A realisation, listing or debug information that does not read as one.
    #[error("{what}: {why}")]
    Object {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such upload, or it was let go of.
    #[error("there is no upload {0} here; begin anew")]
    NoUpload(String),
    /// A part that begins elsewhere than where the upload has come to.
    #[error("the upload is at byte {expected}, and the part begins at {got}")]
    Offset {
        /// Where the next part must begin.
        expected: u64,
        /// Where this one begins.
        got: u64,
    },
    /// A part that is not what it says.
    #[error("the part hashes to {computed}, but {declared} was declared; nothing of it was taken")]
    Part {
        /// By the header.
        declared: Sha256,
        /// As computed.
        computed: Sha256,
    },
    /// Another request writes to the same upload.
    #[error("another request is writing to this upload")]
    Writing,
    /// A compression that is not read.
    #[error("NARs compressed as {0:?} are not taken; zstd, xz, gzip, bzip2, lz4 and none are")]
    Compression(String),
    /// Too much of something in one request.
    #[error("{0}")]
    TooMany(String),
    /// The client went away, or was too slow.
    #[error("the body did not come whole: {0}")]
    Body(String),
    /// A source could not be read.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The bank is away: not mounted, or its disks do not answer.
    #[error("the cache cannot be written now; ask again")]
    Away(#[source] BankError),
    /// There is no room in the bank.
    #[error("{0}")]
    NoSpace(String),
    /// The bank could not be written or read.
    #[error("the bank could not be written; the server's log has it")]
    Bank(#[source] BankError),
}

impl From<BankError> for PushError {
    fn from(error: BankError) -> Self {
        match error {
            BankError::Io { ref source, .. } if is_out_of_space(source) => {
                Self::NoSpace(format!("there is no space left for it: {source}"))
            }
            BankError::Away(_) | BankError::NotMounted { .. } => Self::Away(error),
            other => Self::Bank(other),
        }
    }
}

impl PushError {
    /// What kind of refusal it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Nar(error) => error.class(),
            Self::NoSpace(_) => Class::NoSpace,
            Self::Bank(_) | Self::NoNarToRead { .. } => Class::Failed,
            Self::Unavailable(_) | Self::Away(_) => Class::Unavailable,
            Self::Body(_) => Class::Aborted,
            Self::Untrusted { .. } => Class::Untrusted,
            Self::NoUpload(_) => Class::NotFound,
            Self::Compression(_) => Class::Unsupported,
            Self::TooMany(_) => Class::TooLarge,
            Self::NoNar { .. }
            | Self::MissingReferences { .. }
            | Self::Conflict { .. }
            | Self::ObjectConflict { .. }
            | Self::Offset { .. }
            | Self::Writing => Class::Conflict,
            Self::NarInfo(NarInfoError::TooLong(_) | NarInfoError::TooMany(..)) => Class::TooLarge,
            Self::NarInfo(_)
            | Self::Mismatch { .. }
            | Self::OtherPath { .. }
            | Self::OtherHash { .. }
            | Self::OtherSize { .. }
            | Self::NotReferred { .. }
            | Self::SelfReference { .. }
            | Self::Deriver { .. }
            | Self::ContentAddress { .. }
            | Self::BadSignature { .. }
            | Self::Object { .. }
            | Self::Part { .. } => Class::Invalid,
        }
    }

    /// The path that it is about, if it is about one.
    pub fn path(&self) -> Option<StorePathHash> {
        match self {
            Self::Mismatch { path, .. }
            | Self::NoNar { path }
            | Self::NoNarToRead { path, .. }
            | Self::MissingReferences { path, .. }
            | Self::NotReferred { path, .. }
            | Self::SelfReference { path }
            | Self::Deriver { path, .. }
            | Self::ContentAddress { path, .. }
            | Self::BadSignature { path, .. }
            | Self::Untrusted { path }
            | Self::Conflict { path, .. } => Some(path.hash()),
            Self::OtherPath { ours, .. } => Some(*ours),
            _ => None,
        }
    }
}
