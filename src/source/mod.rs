//! Where a path may come from: a bank, or the host's own store.
//!
//! Everything here may block, and so belongs on a blocking thread, but for what reads memory only
//! ([`Presence`]).

pub mod bank;
pub mod behind;
pub mod browse;
pub(crate) mod buffer;
pub mod cache;
pub mod chunks;
pub mod growing;
pub mod local;
mod names;
pub mod quarantine;
pub mod reader;
pub mod search;
pub mod signer;
pub mod stored_file;
mod storm;
pub mod upstream;
pub mod verified;
pub mod view;
pub mod vital;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus::IntCounter;

use crate::bank::{BuildId, Object};
use crate::codec::seekable;
use crate::index::presence::Presence;
use crate::metrics::SourceLabel;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarRequest;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;

pub use bank::BankSource;
pub use local::LocalStore;
pub use stored_file::StoredFile;
pub use verified::{Expected, TransferError};

use growing::GrowingFile;
use quarantine::Quarantine;
use vital::Vital;

/// One place that paths come from.
#[expect(clippy::large_enum_variant, reason = "a handful exist, each behind its own Arc")]
pub enum Source {
    /// A cache's own directory, or one like it that others keep.
    Bank(BankSource),
    /// The host's store; several caches may share it.
    Store(Arc<LocalStore>),
}

/// Why a source did not answer. Neither means that it is known not to have the path.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source cannot be read now: clients should ask again.
    #[error("{0}")]
    Unavailable(String),
    /// The path is there, but not whole: it is answered as if it were not there.
    #[error("{0}")]
    Damaged(String),
}

/// A NAR that can be sent.
pub struct Nar {
    /// What is sent, and how.
    pub body: NarBody,
    /// Bytes in all, where that is known beforehand.
    pub size: Option<u64>,
    /// A strong validator: the same tag, the same bytes.
    pub tag: String,
}

/// The ways of sending a NAR.
pub enum NarBody {
    /// What is stored in a file.
    Stored(Stored),
    /// A tree of the local store.
    Tree(local::TreeNar),
    /// A file that is being baked, or fetched from elsewhere.
    Growing(Arc<GrowingFile>),
}

/// The ways in which a NAR is stored in a file.
pub enum Stored {
    /// The file as it lies is what is sent.
    File(StoredFile),
    /// The content of a file in our form is sent, from any offset.
    Seekable(Box<seekable::Reader<StoredFile>>, Expected),
    /// The content of a file that Nix wrote is sent, decoded from its beginning.
    Decoded(Box<bank::Compressed>, Expected),
}

impl Source {
    /// The label that metrics and logs use.
    pub const fn label(&self) -> SourceLabel {
        match self {
            Self::Bank(bank) => bank.label(),
            Self::Store(_) => SourceLabel::Store,
        }
    }

    /// Its name within its cache: the label, with a number for each of the parts.
    pub fn name(&self) -> &str {
        match self {
            Self::Bank(bank) => bank.name(),
            Self::Store(_) => SourceLabel::Store.label(),
        }
    }

    /// Whether it was there at the last good look. Only a part may not have come yet.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Bank(bank) => bank.is_there(),
            Self::Store(_) => true,
        }
    }

    /// What is known of it in memory.
    pub fn presence(&self) -> &Presence {
        match self {
            Self::Bank(bank) => &bank.presence,
            Self::Store(store) => &store.presence,
        }
    }

    /// Where those who watch what lies below it say how it stands. While they say that it is away,
    /// nothing here touches the disk.
    pub fn vital(&self) -> &Arc<Vital> {
        match self {
            Self::Bank(bank) => &bank.vital,
            Self::Store(store) => &store.vital,
        }
    }

    /// The path that has the NAR of this hash, as far as it is known of a bank.
    pub fn path_of_nar(&self, nar_hash: Sha256) -> Option<StorePathHash> {
        match self {
            Self::Bank(bank) => bank.path_of(nar_hash),
            Self::Store(_) => None,
        }
    }

    /// Which files of it cannot be read, where it has files.
    pub fn quarantine(&self) -> Option<&Arc<Quarantine>> {
        match self {
            Self::Bank(bank) => Some(bank.quarantine()),
            Self::Store(_) => None,
        }
    }

    /// Changes whenever anything may be answered otherwise than before.
    pub fn version(&self) -> u64 {
        self.presence().version() + self.quarantine().map_or(0, |held| held.version())
    }

    /// Counts its read errors in `counter`.
    pub(super) fn count_read_errors_with(&self, counter: IntCounter) {
        match self {
            Self::Bank(bank) => bank.quarantine().count_with(counter),
            Self::Store(store) => store.count_read_errors_with(counter),
        }
    }

    /// Looks whether the source is there and whether it changed since the last look.
    pub fn look(&self) -> Result<(), SourceError> {
        self.vital().check()?;
        match self {
            Self::Bank(bank) => bank.look(),
            Self::Store(store) => store.look(),
        }
    }

    /// Scans anew, if that is due.
    pub fn scan_if_due(&self) -> Result<(), SourceError> {
        self.vital().check()?;
        match self {
            Self::Bank(bank) => bank.scan_if_due(),
            Self::Store(store) => store.scan_if_due(),
        }
    }

    /// The bytes of the files of its NARs, as far as they are known; `None` where it has no such files.
    pub fn nar_bytes(&self) -> Option<u64> {
        match self {
            Self::Bank(bank) => Some(bank.nar_bytes()),
            Self::Store(_) => None,
        }
    }

    /// Whether there may be more to learn than the last scan told.
    pub fn has_more_to_learn(&self) -> bool {
        match self {
            Self::Bank(bank) => self.vital().check().is_ok() && bank.has_unread(),
            Self::Store(_) => false,
        }
    }

    /// Notes that a path has come to it, whose NAR is to be found by its name from now on. Blocks.
    pub fn came(&self, hash: StorePathHash) {
        match self {
            Self::Bank(bank) => bank.read_new(hash),
            Self::Store(_) => {}
        }
    }

    /// Learns some more of what it has, where a scan alone does not tell; says whether there is more
    /// to learn.
    pub fn learn_some(&self) -> bool {
        match self {
            Self::Bank(_) if self.vital().check().is_err() => false,
            Self::Bank(bank) => bank.read_some(),
            Self::Store(_) => false,
        }
    }

    /// The narinfo of a path whose NAR is there, with the signatures that it came with.
    pub fn find(&self, hash: StorePathHash) -> Result<Option<NarInfo>, SourceError> {
        self.vital().check()?;
        if self.presence().contains(hash) == Some(false) {
            return Ok(None);
        }
        match self {
            Self::Bank(bank) => bank.find(hash),
            Self::Store(store) => store.find(hash),
        }
    }

    /// The NAR that is asked for.
    pub fn nar(&self, request: NarRequest) -> Result<Option<Nar>, SourceError> {
        self.vital().check()?;
        match self {
            Self::Bank(bank) => bank.nar(request),
            Self::Store(store) => store.nar(request),
        }
    }

    /// One of the smaller objects, as a stream of its decoded bytes.
    pub fn object(&self, object: &Object) -> Result<Option<Blob>, SourceError> {
        self.vital().check()?;
        match self {
            Self::Bank(bank) => bank.object(object),
            Self::Store(store) => store.object(object),
        }
    }

    /// Where the debug information of a build is: the JSON of `debuginfo/`.
    pub fn debug_info(&self, id: &BuildId) -> Result<Option<Blob>, SourceError> {
        self.vital().check()?;
        match self {
            Self::Bank(bank) => bank.object(&Object::DebugInfo(id.clone())),
            Self::Store(store) => store.debug_info(id),
        }
    }
}

/// A small object: its bytes, decoded.
pub enum Blob {
    /// Whole, in memory.
    Bytes(Vec<u8>),
    /// A stream of unknown length.
    Stream(Box<dyn std::io::Read + Send>),
}
