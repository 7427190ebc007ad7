//! What is looked at in the decoded bytes.

use super::{FileFacts, VerifiedNar};
use crate::nix::hash::{Hasher, Sha256};
use crate::nix::nar::{Limits, Listing, ListingBuilder, NarError, Parser};
use crate::nix::references::{ReferenceCandidates, ReferenceScanner};

pub(super) struct Inspector {
    hasher: Hasher,
    parser: Parser,
    listing: ListingBuilder,
    scanner: ReferenceScanner,
}

/// What a whole NAR turned out to be.
pub(super) struct Inspected {
    pub(super) nar_hash: Sha256,
    pub(super) nar_size: u64,
    listing: Option<Listing>,
    references: ReferenceCandidates,
}

impl Inspector {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            hasher: Hasher::default(),
            parser: Parser::new(limits),
            listing: ListingBuilder::new(limits),
            scanner: ReferenceScanner::default(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), NarError> {
        self.parser.push(bytes, &mut |event| self.listing.event(&event))?;
        self.hasher.update(bytes);
        self.scanner.push(bytes);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Inspected, NarError> {
        let nar_size = self.parser.finish()?;
        let (nar_hash, _) = self.hasher.finish();
        // Of a whole NAR there is a listing unless it would be too large.
        let listing = self.listing.finish().ok();
        Ok(Inspected { nar_hash, nar_size, listing, references: self.scanner.finish() })
    }
}

impl Inspected {
    pub(super) fn into_verified(self, received: FileFacts, stored: FileFacts) -> VerifiedNar {
        let Self { nar_hash, nar_size, listing, references } = self;
        VerifiedNar { nar_hash, nar_size, received, stored, listing, references }
    }
}
