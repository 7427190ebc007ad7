//! Putting back what the disk has lost.
//!
//! A path of a bank that cannot be read, or not whole, is answered as not there. Where another source of
//! its cache has it, or a cache elsewhere that the configuration names, it is fetched from there, held
//! against the NarHash that its own narinfo has, and published in the place of what is damaged. Where the
//! narinfo is what is damaged, the word of the cache's other sources is taken, which is served as well, and
//! that of a cache elsewhere only with a signature by a key that the cache knows.
//!
//! One path at a time, and one that nobody has is tried ever later: a disk that dies brings many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use crate::codec::Compression;
use crate::ingest::{Ingest, Outcome, PushError};
use crate::metrics::Metrics;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::{NarFileName, NarRequest};
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;
use crate::source::local::tree::ReadPool;
use crate::source::upstream::{Upstream, UpstreamError};
use crate::source::{BankSource, Source, SourceError, TransferError};

/// How long a path is left alone that nobody had.
const RETRY: Duration = Duration::from_secs(300);
/// Each time it is left alone twice as long, at most this.
const MAX_RETRY: Duration = Duration::from_secs(6 * 3600);

/// Heals the bank of one cache.
pub struct Healer {
    ingest: Arc<Ingest>,
    upstreams: Vec<Upstream>,
    readers: Arc<ReadPool>,
    waits: HashMap<StorePathHash, Wait>,
    healed: IntCounter,
    failed: IntCounter,
}

/// Where a path may be had from.
enum Place<'a> {
    Source(&'a Source),
    Upstream(&'a Upstream),
}

impl Place<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Source(source) => source.name(),
            Self::Upstream(upstream) => upstream.url(),
        }
    }
}

struct Wait {
    until: Instant,
    pause: Duration,
}

/// Why a path was not had from one place.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error("it is another one there, of NarHash {0}")]
    Other(Sha256),
    #[error(
        "what its narinfo is here is not known, and no key that this cache knows signed the one there"
    )]
    NotVouchedFor,
}

impl Healer {
    /// Heals the bank that `ingest` publishes in, from the other sources of its cache and then from
    /// `upstreams`, in their order.
    pub fn new(
        ingest: Arc<Ingest>,
        upstreams: Vec<Upstream>,
        readers: Arc<ReadPool>,
        metrics: &Metrics,
    ) -> Self {
        let name = &ingest.place().0.name;
        let (healed, failed) = (metrics.heal(name, true), metrics.heal(name, false));
        Self { ingest, upstreams, readers, waits: HashMap::new(), healed, failed }
    }

    /// Tries each damaged path whose time has come. Blocks, for as long as fetching them takes.
    pub fn round(&mut self, now: Instant) {
        let source = Arc::clone(self.ingest.place().1);
        let Source::Bank(bank) = &*source else { return };
        let damaged = bank.damaged_paths();
        self.waits.retain(|path, _| damaged.contains(path));
        for path in damaged {
            if !source.vital().is_well() {
                return;
            }
            if self.waits.get(&path).is_some_and(|wait| now < wait.until) {
                continue;
            }
            if self.heal(bank, path) {
                self.waits.remove(&path);
            } else {
                let before = self.waits.get(&path).map(|wait| wait.pause * 2);
                let pause = before.unwrap_or(RETRY).min(MAX_RETRY);
                self.waits.insert(path, Wait { until: Instant::now() + pause, pause });
            }
        }
    }

    /// Tries a path now, whenever it was tried last. Says whether nothing is wrong with it any more. Blocks.
    pub fn heal_now(&self, path: StorePathHash) -> bool {
        let source = Arc::clone(self.ingest.place().1);
        match &*source {
            Source::Bank(bank) => self.heal(bank, path),
            Source::Store(_) => false,
        }
    }

    /// Says whether nothing is wrong with the path any more.
    fn heal(&self, bank: &BankSource, path: StorePathHash) -> bool {
        let narinfo = match bank.damage(path) {
            Ok(Some(damage)) => damage.narinfo,
            Ok(None) => return true,
            Err(error) => {
                tracing::debug!(%path, "is damaged, and what is left of it cannot be read: {error}");
                return false;
            }
        };
        let (cache, own) = self.ingest.place();
        let known = narinfo.as_ref().map(|narinfo| &narinfo.info);
        let others = cache.sources().iter().filter(|source| !Arc::ptr_eq(source, own));
        let others = others.map(|source| Place::Source(source));
        let mut why = Vec::new();
        for place in others.chain(self.upstreams.iter().map(Place::Upstream)) {
            match self.heal_from(&place, path, known) {
                Ok(Some(outcome)) => {
                    self.was_healed(bank, path, outcome, place.name(), narinfo.as_ref());
                    return true;
                }
                Ok(None) => {}
                Err(error) => why.push(format!("{}: {error}", place.name())),
            }
        }
        let why = if why.is_empty() { "nobody else has it".to_owned() } else { why.join("; ") };
        tracing::warn!(cache = cache.name, %path, "is damaged and could not be healed: {why}");
        self.failed.inc();
        false
    }

    fn was_healed(
        &self,
        bank: &BankSource,
        path: StorePathHash,
        outcome: Outcome,
        from: &str,
        before: Option<&NarInfo>,
    ) {
        // What another program wrote had another name, and nothing names it any more.
        let old = before.and_then(|narinfo| {
            let name = narinfo.nar_file()?;
            (name != NarFileName::zstd(narinfo.info.nar_hash)).then_some(name)
        });
        if outcome == Outcome::Published
            && let Some(error) = old.and_then(|old| self.ingest.set_aside(old).err())
        {
            tracing::warn!(%path, "its damaged NAR could not be set aside: {error}");
        }
        bank.quarantine().look_again();
        if outcome == Outcome::Published {
            let cache = &self.ingest.place().0.name;
            tracing::info!(cache, %path, from, "was damaged, and is healed");
            self.healed.inc();
        }
    }

    fn heal_from(
        &self,
        place: &Place<'_>,
        path: StorePathHash,
        known: Option<&PathInfo>,
    ) -> Result<Option<Outcome>, Failure> {
        match place {
            Place::Source(source) => self.fetch_from_source(source, path, known),
            Place::Upstream(upstream) => self.fetch_from_upstream(upstream, path, known),
        }
    }

    fn fetch_from_source(
        &self,
        source: &Source,
        path: StorePathHash,
        known: Option<&PathInfo>,
    ) -> Result<Option<Outcome>, Failure> {
        let Some(theirs) = source.find(path)? else { return Ok(None) };
        let info = the_same(known, &theirs.info)?;
        let request = NarRequest::OfPath { path, nar_hash: Some(info.nar_hash) };
        let Some(nar) = source.nar(request)? else { return Ok(None) };
        let Some(body) = nar.into_reader(&self.readers)? else { return Ok(None) };
        Ok(Some(self.ingest.heal(info, Compression::None, body)?))
    }

    fn fetch_from_upstream(
        &self,
        upstream: &Upstream,
        path: StorePathHash,
        known: Option<&PathInfo>,
    ) -> Result<Option<Outcome>, Failure> {
        let Some(theirs) = upstream.narinfo(path, self.ingest.store_dir())? else {
            return Ok(None);
        };
        if known.is_none() && !self.ingest.vouches(&theirs.info, &[]) {
            return Err(Failure::NotVouchedFor);
        }
        let info = the_same(known, &theirs.info)?;
        let Some((compression, body)) = upstream.nar(&theirs)? else { return Ok(None) };
        Ok(Some(self.ingest.heal(info, compression, body)?))
    }
}

/// What is known of a path, if theirs is the same NAR.
fn the_same<'a>(
    known: Option<&'a PathInfo>,
    theirs: &'a PathInfo,
) -> Result<&'a PathInfo, Failure> {
    match known {
        Some(known) if known.nar_hash != theirs.nar_hash => Err(Failure::Other(theirs.nar_hash)),
        Some(known) => Ok(known),
        None => Ok(theirs),
    }
}
