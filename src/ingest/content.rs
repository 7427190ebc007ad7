//! Claims that only the bytes can prove: where a path comes from, and what it is named after.

use std::io::{BufReader, Read};

use super::publish::Ingest;
use super::refusal::PushError;
use super::upload::compression_of;
use crate::bank::BankError;
use crate::codec::{Decoder, Limits, seekable};
use crate::nix::content_address::{ContentAddress, ContentAddressError, Verifier};
use crate::nix::derivation;
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePath;
use crate::source::SourceError;

/// What is known of the content address that a path claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// It claims none.
    None,
    /// It is of a kind that is not verified here, and is not published.
    Unverified,
    /// It is that of the content, by a hash of which others can make another content: MD5 or SHA-1.
    Weak,
    /// It is that of the content, and as good as a signature.
    Proved,
}

impl Ingest {
    /// Holds the deriver against its outputs, if it is in the bank itself.
    pub(super) fn check_deriver(&self, info: &PathInfo) -> Result<(), PushError> {
        let Some(deriver) = &info.deriver else { return Ok(()) };
        let refuse = |why: &str| PushError::Deriver {
            path: info.path.clone(),
            deriver: deriver.clone(),
            why: why.into(),
        };
        if !deriver.name().ends_with(".drv") {
            return Err(refuse("it is no derivation"));
        }
        let Some(nar) = self.small_nar(deriver, derivation::MAX_SIZE)? else { return Ok(()) };
        let outputs = derivation::outputs_in_nar(&nar, self.store_dir())
            .map_err(|error| refuse(&error.to_string()))?;
        // Outputs whose path is known only after the build could be any.
        let could_be =
            |output: &Option<StorePath>| output.as_ref().is_none_or(|output| *output == info.path);
        if outputs.values().any(could_be) {
            Ok(())
        } else {
            Err(refuse("no output of it is this path"))
        }
    }

    /// Whether the content address of a path, if it claims one, is that of the NAR that waits.
    pub(super) fn check_content_address(
        &self,
        info: &PathInfo,
        waits: NarFileName,
    ) -> Result<Claim, PushError> {
        let Some(claim) = &info.ca else { return Ok(Claim::None) };
        let refuse = |error: ContentAddressError| PushError::ContentAddress {
            path: info.path.clone(),
            why: error.to_string(),
        };
        let claim = ContentAddress::parse(claim).map_err(refuse)?;
        if matches!(claim, ContentAddress::Unverifiable(_)) {
            return Ok(Claim::Unverified);
        }
        let proved = if claim.is_collision_prone() { Claim::Weak } else { Claim::Proved };
        let mut references = info.references.clone();
        references.sort_unstable();
        if claim.is_nar_hash(info.nar_hash) {
            claim.check_path(&info.path, &references, self.store_dir()).map_err(refuse)?;
            return Ok(proved);
        }
        let mut verifier =
            Verifier::new(claim, &info.path, &references, self.store_dir()).map_err(refuse)?;
        let read = |why: String| PushError::NoNarToRead { path: info.path.clone(), why };
        let Some((file, size)) = self.bank.open_pending(waits)? else {
            return Err(PushError::NoNar { path: info.path.clone() });
        };
        let reader = seekable::Reader::open(file, size).map_err(|error| read(error.to_string()))?;
        let whole = 0..reader.size();
        let chunks = reader.into_chunks(whole).map_err(|error| read(error.to_string()))?;
        for chunk in chunks {
            verifier.push(&chunk.map_err(|error| read(error.to_string()))?).map_err(refuse)?;
        }
        verifier.finish().map_err(refuse)?;
        Ok(proved)
    }

    /// The NAR of a path of the bank, decoded, if it is there and not larger than `limit`.
    fn small_nar(&self, path: &StorePath, limit: u64) -> Result<Option<Vec<u8>>, PushError> {
        let narinfo = match self.source.find(path.hash()) {
            Ok(Some(narinfo)) if narinfo.info.path == *path && narinfo.info.nar_size <= limit => {
                narinfo
            }
            Ok(_) | Err(SourceError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(self.cache.unavailable(error).into()),
        };
        let name = narinfo.nar_file();
        let Some(name) = name else { return Ok(None) };
        let file = match self.bank.open_nar(name) {
            Ok(Some((file, _))) => file,
            Ok(None) | Err(BankError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let limits = Limits { max_output: limit, max_ratio: u32::MAX, ..Limits::output(limit) };
        let mut nar = Vec::new();
        // What does not decode says nothing about the path that claims to come from it.
        let decoder = Decoder::new(compression_of(name)?, BufReader::new(file), limits);
        let decoded = decoder.map(|mut decoder| decoder.read_to_end(&mut nar));
        Ok(matches!(decoded, Ok(Ok(_))).then_some(nar))
    }
}
