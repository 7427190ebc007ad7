//! NARs that lie in the bank already, read again before they are believed.

use std::fs::File;
use std::time::Instant;

use super::facts::Facts;
use super::nar::{NarLimits, Taken, check, read_back};
use super::publish::{Fresh, Ingest};
use super::refusal::PushError;
use super::upload::{Added, compression_of};
use crate::bank::BankError;
use crate::bank::publish::pending::Durability;
use crate::codec::Compression;
use crate::nix::hash::Sha256;
use crate::nix::nar::Listing;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;

/// What a NAR of the bank turned out to be.
pub(super) enum Examined {
    /// There is none of this name.
    Nothing,
    /// It is a NAR.
    Good(Box<Facts>),
    /// It is none.
    Bad,
}

impl Ingest {
    /// A NAR that waits, with what was computed of it.
    ///
    /// One of an earlier process is read again: it may not have been synced when the power went.
    pub(super) fn pending(
        &self,
        name: NarFileName,
    ) -> Result<Option<(NarFileName, Facts)>, PushError> {
        let _waiting = self.lock_waiting(name);
        let found = match self.look_at_waiting(name) {
            Err(PushError::Bank(BankError::Damaged { .. })) => None,
            other => other?,
        };
        if let Some(facts) = found {
            return Ok(Some((name, facts)));
        }
        if self.bank.open_pending(name).is_ok_and(|found| found.is_none()) {
            return Ok(None);
        }
        tracing::warn!(
            nar = name.file_name(),
            "what an earlier process left of a NAR is not whole"
        );
        self.remove_pending(name)?;
        Ok(None)
    }

    /// The facts of a NAR that waits; `None` where there is none, or it is not what they say.
    fn look_at_waiting(&self, name: NarFileName) -> Result<Option<Facts>, PushError> {
        let Some(text) = self.bank.pending_facts(name)? else { return Ok(None) };
        let Some(facts) = Facts::from_json(&text) else { return Ok(None) };
        if let Some(nar) = self.fresh().get_mut(&name) {
            nar.asked = Instant::now();
            return Ok(Some(facts));
        }
        let Some((file, _)) = self.bank.open_pending(name)? else { return Ok(None) };
        let nar = match check(&file, &self.own_limits()) {
            Ok(Taken::Stored(nar)) => nar,
            Ok(Taken::NotSeekable) => return Ok(None),
            Err(error) if error.is_of_content() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let listing = nar.listing.as_ref().map(Listing::to_json);
        let is_whole = Facts::of(&nar).received_as(&facts).to_json() == facts.to_json()
            && self.bank.pending_listing(name)? == listing;
        if !is_whole {
            return Ok(None);
        }
        // What can be read may still lie in memory only.
        self.fresh().insert(name, Fresh::now(Durability::WithCommit));
        Ok(Some(facts))
    }

    /// Has a NAR that is visible wait once more, for another path of the same content.
    pub(super) fn take_again(
        &self,
        name: NarFileName,
        nar_hash: Sha256,
    ) -> Result<Option<(NarFileName, Facts)>, PushError> {
        let Some((file, _)) = self.bank.open_nar(name)? else { return Ok(None) };
        let room = self.quota.reserve();
        match self.store(read_back(&file), Compression::Zstd, &self.own_limits(), &room) {
            Ok((nar, staged)) if nar.nar_hash == nar_hash => {
                let waits = NarFileName::bare(nar_hash);
                if self.add(waits, &staged, &nar, Durability::Now)? == Added::Kept {
                    room.keep();
                }
                // Where yet another path has just taken it along, the visible one is what counts.
                let found = self.pending(waits)?;
                Ok(found.or_else(|| Some((waits, Facts::of(&nar)))))
            }
            Ok(_) => Ok(None),
            Err(PushError::Nar(error)) if error.is_of_content() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a NAR of the bank from beginning to end.
    pub(super) fn examine(&self, name: NarFileName) -> Result<Examined, PushError> {
        match self.bank.open_nar(name) {
            Ok(None) => Ok(Examined::Nothing),
            Ok(Some((file, _))) => self.examine_file(&file, compression_of(name)?),
            Err(BankError::Damaged { .. }) => Ok(Examined::Bad),
            Err(error) => Err(error.into()),
        }
    }

    fn examine_file(&self, file: &File, compression: Compression) -> Result<Examined, PushError> {
        let limits = self.own_limits();
        if compression == Compression::Zstd {
            match check(file, &limits) {
                Ok(Taken::Stored(nar)) => return Ok(Examined::Good(Box::new(Facts::of(&nar)))),
                Ok(Taken::NotSeekable) => {}
                Err(error) if error.is_of_content() => return Ok(Examined::Bad),
                Err(error) => return Err(error.into()),
            }
        }
        // Another form, as Nix writes it: it is read by encoding it into a file that is dropped.
        let room = self.quota.reserve();
        match self.store(read_back(file), compression, &limits, &room) {
            Ok((nar, _)) => Ok(Examined::Good(Box::new(Facts::of(&nar)))),
            Err(PushError::Nar(error)) if error.is_of_content() => Ok(Examined::Bad),
            Err(error) => Err(error),
        }
    }

    /// Reads what the bank holds of a path and sets it aside if it is not what its narinfo says.
    pub(super) fn verify(&self, narinfo: &NarInfo) -> Result<bool, PushError> {
        let name = narinfo.nar_file();
        let Some(name) = name else { return Ok(false) };
        let is_good = match self.examine(name)? {
            Examined::Good(facts) => {
                facts.nar_hash == narinfo.info.nar_hash
                    && narinfo.file_hash.is_none_or(|hash| hash == facts.received_hash)
            }
            Examined::Nothing | Examined::Bad => false,
        };
        if !is_good {
            tracing::error!(path = %narinfo.info.path, "its NAR is damaged, and was set aside");
            self.bank.set_aside(name)?;
            self.cache.changed(&self.source);
        }
        Ok(is_good)
    }

    /// What lies here was taken once: its ratio is no reason to doubt it.
    pub fn own_limits(&self) -> NarLimits {
        NarLimits { max_ratio: u32::MAX, ..self.limits }
    }
}
