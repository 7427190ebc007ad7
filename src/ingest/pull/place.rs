//! A cache elsewhere, as it is asked for what is not here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::index::holdings::Held;
use crate::metrics::SourceLabel;
use crate::metrics::pull::PlaceMetrics;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StoreDir, StorePathHash};
use crate::sign::PublicKey;
use crate::source::upstream::circuit::Circuit;
use crate::source::upstream::{Upstream, UpstreamError};

/// How long a look may take whether it answers again.
const LOOK: Duration = Duration::from_secs(5);
/// How long a peer may take to tell what it holds.
const HOLDINGS: Duration = Duration::from_secs(20);
/// How often a peer is asked for all that it holds, for what it holds no more.
const WHOLE_EVERY: Duration = Duration::from_secs(300);

/// A cache elsewhere.
pub struct Place {
    upstream: Upstream,
    /// Keys that vouch for what comes from there, besides those that the cache goes by.
    pub(super) keys: Vec<PublicKey>,
    kind: SourceLabel,
    circuit: Circuit,
    /// Whether it was ever looked what it is.
    was_seen: AtomicBool,
    held: RwLock<Arc<Held>>,
    whole_at: RwLock<Option<Instant>>,
    pub(super) metrics: PlaceMetrics,
}

impl Place {
    /// Another node like this one: it is asked for what it has itself, and only for that which it may have.
    pub fn peer(upstream: Upstream, keys: Vec<PublicKey>, metrics: PlaceMetrics) -> Self {
        Self::new(upstream.as_peer(), keys, SourceLabel::Peer, metrics)
    }

    /// Any binary cache.
    pub fn upstream(upstream: Upstream, keys: Vec<PublicKey>, metrics: PlaceMetrics) -> Self {
        Self::new(upstream, keys, SourceLabel::Upstream, metrics)
    }

    fn new(
        upstream: Upstream,
        keys: Vec<PublicKey>,
        kind: SourceLabel,
        metrics: PlaceMetrics,
    ) -> Self {
        metrics.up.set(1);
        let (held, whole_at) = (RwLock::default(), RwLock::default());
        let (circuit, was_seen) = (Circuit::default(), AtomicBool::new(false));
        Self { upstream, keys, kind, circuit, was_seen, held, whole_at, metrics }
    }

    /// Which of the two it is.
    pub const fn kind(&self) -> SourceLabel {
        self.kind
    }

    /// Its address.
    pub fn url(&self) -> &str {
        self.upstream.url()
    }

    /// How it is spoken to.
    pub(super) const fn client(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether it answered lately, as far as it was asked.
    pub fn answers(&self) -> bool {
        self.circuit.is_closed()
    }

    /// Whether it may have the path.
    pub(super) fn may_have(&self, hash: StorePathHash) -> bool {
        self.held().may_have(hash)
    }

    /// What it says of a path, if it says it in time. Blocks.
    pub(super) fn narinfo(
        &self,
        hash: StorePathHash,
        store_dir: &StoreDir,
        within: Duration,
    ) -> Result<Option<NarInfo>, UpstreamError> {
        let began = Instant::now();
        let answer = self.upstream.narinfo_within(hash, store_dir, Some(within));
        self.metrics.narinfo_duration.observe(began.elapsed().as_secs_f64());
        match &answer {
            Ok(Some(_)) => self.metrics.had.inc(),
            Ok(None) => self.metrics.had_not.inc(),
            Err(_) => self.metrics.no_answer.inc(),
        }
        match &answer {
            Err(error) => self.failed(error),
            Ok(_) => self.answered(),
        }
        answer
    }

    /// Notes what went wrong. Where it is the cache as a whole that does not answer, it is left alone for a while.
    pub(super) fn failed(&self, error: &UpstreamError) {
        if is_silence(error) && self.circuit.failed(Instant::now()) {
            self.metrics.up.set(0);
            tracing::warn!("it is not asked until it answers again: {error}");
        }
    }

    fn answered(&self) {
        if self.circuit.answered() {
            self.metrics.up.set(1);
            tracing::info!(upstream = self.url(), "it answers again");
        }
    }

    /// Looks whether it answers again, where that is due, and asks a peer what came to it. Blocks.
    pub fn tend(&self, store_dir: &StoreDir, now: Instant) {
        if self.circuit.is_due(now) || !self.was_seen.load(Ordering::Acquire) {
            self.look(store_dir, now);
        }
        if self.kind == SourceLabel::Peer && self.circuit.is_closed() {
            self.learn(now);
        }
    }

    fn look(&self, store_dir: &StoreDir, now: Instant) {
        match self.upstream.check(store_dir, LOOK) {
            Ok(()) => {
                self.was_seen.store(true, Ordering::Release);
                self.answered();
            }
            // It is no cache of ours, however well it answers.
            Err(error @ UpstreamError::CacheInfo { .. }) => {
                self.was_seen.store(true, Ordering::Release);
                if self.circuit.open(now) {
                    self.metrics.up.set(0);
                    tracing::error!("nothing is fetched from there: {error}");
                }
            }
            Err(error) if self.circuit.is_closed() => self.failed(&error),
            Err(error) => {
                tracing::debug!("no answer yet: {error}");
                self.circuit.failed(now);
            }
        }
    }

    fn learn(&self, now: Instant) {
        let whole_at = *self.whole_at.read().unwrap_or_else(PoisonError::into_inner);
        let is_stale = whole_at.is_none_or(|at| now.saturating_duration_since(at) >= WHOLE_EVERY);
        let known = self.held().known().filter(|_| !is_stale);
        match self.upstream.holdings(known.as_ref(), HOLDINGS) {
            Ok(Some(news)) => {
                if news.is_whole {
                    *self.whole_at.write().unwrap_or_else(PoisonError::into_inner) = Some(now);
                }
                if news.is_whole || !news.is_empty() {
                    // Nobody who asks waits for it to be sorted.
                    let mut held = (*self.held()).clone();
                    held.learn(news);
                    self.know(held);
                }
            }
            // It does not say: it is asked for each path.
            Ok(None) => self.forget_holdings(),
            Err(error) => {
                tracing::debug!("what it holds is not known: {error}");
                self.forget_holdings();
                self.failed(&error);
            }
        }
    }

    fn forget_holdings(&self) {
        if self.held().known().is_some() {
            self.know(Held::default());
        }
    }

    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn know(&self, held: Held) {
        self.metrics.paths.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
    }
}

/// Whether the cache as a whole did not answer, and not only for one path.
fn is_silence(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Unreachable { .. } => true,
        UpstreamError::Status { status, .. } => *status >= 500 || *status == 429,
        _ => false,
    }
}
