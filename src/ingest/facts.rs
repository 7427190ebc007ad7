//! What was computed of a NAR that waits for its narinfo; kept beside it, so that a restart in between
//! loses nothing.

use serde::{Deserialize, Serialize};

use super::nar::VerifiedNar;
use crate::nix::hash::Sha256;
use crate::nix::references::ReferenceCandidates;

/// The form of the file; another one is not read, and the NAR has to come again.
const FORMAT: u32 = 1;

/// What was computed of a NAR.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    format: u32,
    /// Of the uncompressed NAR.
    pub(super) nar_hash: Sha256,
    /// Of the uncompressed NAR, in bytes.
    pub(super) nar_size: u64,
    /// Of the bytes that came: what the client calls FileHash.
    pub(super) received_hash: Sha256,
    /// Of the bytes that came.
    pub(super) received_size: u64,
    /// Of the file that is stored: our FileHash.
    pub(super) stored_hash: Sha256,
    /// Of the file that is stored, in bytes.
    pub(super) stored_size: u64,
    /// Whether a listing lies beside it.
    pub(super) has_listing: bool,
    /// The store paths that may be referred to.
    pub(super) references: ReferenceCandidates,
}

impl Facts {
    /// What the pipeline found, without the listing, which has a file of its own.
    pub(super) fn of(nar: &VerifiedNar) -> Self {
        Self {
            format: FORMAT,
            nar_hash: nar.nar_hash,
            nar_size: nar.nar_size,
            received_hash: nar.received.hash,
            received_size: nar.received.size,
            stored_hash: nar.stored.hash,
            stored_size: nar.stored.size,
            has_listing: nar.listing.is_some(),
            references: nar.references.clone(),
        }
    }

    /// These facts of a file that was read again, which came as `other` says.
    pub(super) fn received_as(self, other: &Self) -> Self {
        Self { received_hash: other.received_hash, received_size: other.received_size, ..self }
    }

    /// The text of the file.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // Numbers and texts only: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the file; `None` where it is of another form, or not whole.
    pub(super) fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|facts: &Self| facts.format == FORMAT)
    }
}
