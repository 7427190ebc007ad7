//! Verifying: each path of a bank is held against its bytes, one after the other, in the order of their hashes.
//!
//! FileHash, FileSize, NarHash, NarSize, the form of the NAR, references, listing and signatures are computed from what
//! lies on disk. A path whose NAR or narinfo is not what it should be is 404 from then on: a wrong NAR is set aside,
//! into `damaged/`, where it can be looked at, and a narinfo that cannot be read is answered as not there anyway. What is
//! found stays noted until it is mended, or its path is gone. A listing and a signature are put right from what is
//! there; a NAR and a narinfo are fetched from where the path still is ([`super::heal`]).
//!
//! How far it is is noted every few seconds, and what is interrupted goes on from there. One path is in memory at a
//! time, and of its NAR a few pieces.

mod finding;
mod path;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

pub use finding::{Finding, Kind};
pub use path::{Looked, Measure};

use crate::bank::{BankError, Object};
use crate::index::state::{StateDb, StateError, Verification};
use crate::ingest::Ingest;
use crate::nix::narinfo::NarInfo;
use crate::nix::signature::fingerprint;
use crate::nix::store_path::StorePathHash;
use crate::sign::is_forged;
use crate::source::cache::Cache;
use crate::source::{Source, SourceError};

/// How often it is noted how far it is.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// Why a cache is not verified to its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read, or not be written to.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// Its disks do not answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// How far it is cannot be noted.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A cache that is verified.
pub struct Verifier<'a> {
    /// Its name, and what it remembers of its answers.
    pub cache: &'a Cache,
    /// Its own bank, as a source of it.
    pub source: &'a Source,
    /// What takes pushes to it, if anything does.
    pub ingest: Option<&'a Ingest>,
    /// What its paths are held against.
    pub measure: Measure<'a>,
    /// Where it is noted how far it is, and what was found.
    pub state: &'a StateDb,
    /// Fetches what is damaged from where it still is, and says whether it is whole again.
    pub mend: Option<&'a dyn Fn(StorePathHash) -> bool>,
}

/// What came of it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Paths that there were when it began.
    pub total: u64,
    /// Paths that were verified, also before it was interrupted.
    pub paths: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Of these, those of the last path.
    pub bytes_of_last: u64,
    /// Paths that something was wrong with, since it was begun or gone on with.
    pub found: u64,
    /// Of these, those that were mended.
    pub mended: u64,
    /// Whether it came to its end.
    pub has_ended: bool,
}

impl Verifier<'_> {
    /// Verifies all paths, or, unless `anew`, those that an earlier run left, after what it found and did not mend.
    /// `now` is the time in seconds since 1970. `goes_on` hears how far it is after each path, and how long that took;
    /// it says whether to go on. `each` hears of what is found. Blocks.
    pub fn run(
        &self,
        anew: bool,
        now: &dyn Fn() -> i64,
        each: &dyn Fn(&[Finding]),
        goes_on: &dyn Fn(&Verified, Duration) -> bool,
    ) -> Result<Verified, VerifyError> {
        let name = &self.cache.name;
        let earlier = self.state.verification(name)?.filter(|known| known.ended.is_none() && !anew);
        let mut far = earlier.unwrap_or(Verification { began: now(), ..Verification::default() });
        let mut paths = Vec::new();
        self.measure.bank.scan(|hash| paths.push(hash))?;
        paths.sort_unstable();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut verified = Verified { total: count(paths.len()), ..Verified::default() };
        let mut noted: HashSet<StorePathHash> =
            self.state.findings(name)?.into_iter().map(|finding| finding.hash).collect();
        // What was found before, of a path that is gone.
        for hash in noted.iter().filter(|hash| paths.binary_search(hash).is_err()) {
            self.state.note_findings(name, *hash, &[], now())?;
        }
        let first =
            far.position.map_or(0, |position| paths.partition_point(|hash| *hash <= position));
        let (before, left) = paths.split_at(first);
        let again: Vec<_> = before.iter().filter(|hash| noted.contains(hash)).collect();
        let again = again.into_iter().map(|hash| (hash, false));
        self.state.note_verification(name, &far)?;
        let mut told = Instant::now();
        for (hash, is_new) in again.chain(left.iter().map(|hash| (hash, true))) {
            let began = Instant::now();
            self.source.vital().check()?;
            let (findings, bytes, was_mended) = self.verify(*hash)?;
            if !findings.is_empty() || was_mended {
                verified.found += 1;
                verified.mended += u64::from(was_mended);
                each(&findings);
            }
            if !findings.is_empty() || noted.remove(hash) {
                self.state.note_findings(name, *hash, &by_kind(&findings), now())?;
            }
            far.bytes += bytes;
            if is_new {
                (far.position, far.paths) = (Some(*hash), far.paths + 1);
            }
            let (paths, bytes_of_last) = (far.paths, bytes);
            verified = Verified { paths, bytes: far.bytes, bytes_of_last, ..verified };
            if told.elapsed() >= NOTE_EVERY {
                self.state.note_verification(name, &far)?;
                told = Instant::now();
            }
            if !goes_on(&verified, began.elapsed()) {
                self.state.note_verification(name, &far)?;
                return Ok(verified);
            }
        }
        // A clock that went back meanwhile did not go back behind the beginning.
        let ended = Some(now().max(far.began));
        self.state.note_verification(name, &Verification { ended, ..far })?;
        Ok(Verified { has_ended: true, paths: far.paths, bytes: far.bytes, ..verified })
    }

    /// Verifies a path, and mends what can be: what is left, how many bytes were read, and whether all was mended.
    fn verify(&self, hash: StorePathHash) -> Result<(Vec<Finding>, u64, bool), VerifyError> {
        let Some(looked) = self.measure.look(hash)? else { return Ok((Vec::new(), 0, false)) };
        if looked.findings.is_empty() {
            return Ok((Vec::new(), looked.bytes, false));
        }
        // Whoever pushes, heals or collects it at this moment may have been half done.
        let again = self.alone(hash, || self.look_and_act(hash))?;
        let Some(mut again) = again else { return Ok((Vec::new(), looked.bytes, false)) };
        if again.is_damaged() && self.mend.is_some_and(|mend| mend(hash)) {
            again = self.measure.look(hash)?.unwrap_or_default();
        }
        let is_mended = again.findings.is_empty();
        for finding in &again.findings {
            tracing::error!(cache = self.cache.name, %hash, "verified: {}", finding.what);
        }
        Ok((again.findings, looked.bytes, is_mended))
    }

    fn alone<T>(&self, hash: StorePathHash, work: impl FnOnce() -> T) -> T {
        match self.ingest {
            Some(ingest) => ingest.alone_with(hash, work),
            None => work(),
        }
    }

    /// Looks once more, takes what is wrong out of the way, and puts right what follows from what is there.
    fn look_and_act(&self, hash: StorePathHash) -> Result<Option<Looked>, VerifyError> {
        let Some(mut looked) = self.measure.look(hash)? else { return Ok(None) };
        let nar = looked.narinfo.as_ref().and_then(NarInfo::nar_file);
        let is_wrong = |kind| looked.findings.iter().any(|finding| finding.kind == kind);
        if let Some(nar) = nar.filter(|_| is_wrong(Kind::Nar)) {
            self.measure.bank.set_aside(nar)?;
        // One that cannot be read is not served anyway.
        } else if looked.narinfo.is_some() && is_wrong(Kind::NarInfo) {
            self.measure.bank.set_aside_narinfo(hash)?;
        }
        if self.mend.is_some() && !looked.is_damaged() {
            self.put_right(hash, &mut looked)?;
        }
        self.cache.changed(self.source);
        if looked.is_damaged() {
            // Whoever heals hears of it.
            let _ = self.source.find(hash);
        }
        Ok(Some(looked))
    }

    fn put_right(&self, hash: StorePathHash, looked: &mut Looked) -> Result<(), VerifyError> {
        if let Some(listing) = looked.listing.take() {
            self.measure.bank.publish_object(&Object::Listing(hash), &listing, true)?;
            looked.findings.retain(|finding| finding.kind != Kind::Listing);
        }
        let has_forged = looked.findings.iter().any(|finding| finding.kind == Kind::Signature);
        if let Some(narinfo) = looked.narinfo.as_mut().filter(|_| has_forged) {
            let text = fingerprint(self.measure.store_dir, &narinfo.info);
            narinfo
                .info
                .signatures
                .retain(|signature| !is_forged(self.measure.keys.iter(), &text, signature));
            let stored = narinfo.to_stored_text(self.measure.store_dir);
            self.measure.bank.replace_narinfo(hash, &stored)?;
            looked.findings.retain(|finding| finding.kind != Kind::Signature);
        }
        Ok(())
    }
}

/// What was found, by kind, as the state database keeps it.
fn by_kind(findings: &[Finding]) -> Vec<(&'static str, String)> {
    let mut kinds: BTreeMap<Kind, String> = BTreeMap::new();
    for finding in findings {
        let text = kinds.entry(finding.kind).or_default();
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&finding.what);
    }
    kinds.into_iter().map(|(kind, text)| (kind.label(), text)).collect()
}
