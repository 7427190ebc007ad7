//! What the endpoints share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, Method};
use tokio::sync::Semaphore;

use super::auth::Admitted;
use super::error::Failure;
use super::listen::ConnectionStats;
use super::push::UploadSlots;
use super::views::Views;
use crate::auth::{Audience, Gate};
use crate::index::state::StateDb;
use crate::ingest::Ingest;
use crate::ingest::pull::Puller;
use crate::keep::watch::Watch;
use crate::metrics::{EncodingLabel, Metrics, Route};
use crate::source::cache::Cache;
use crate::source::local::tree::ReadPool;
use crate::source::upstream::ONLY_WHAT_IS_HERE;

/// What every request can reach.
pub struct State {
    /// The caches by name.
    pub caches: BTreeMap<String, Arc<Cache>>,
    /// The one that answers at `/`.
    pub default: Arc<Cache>,
    /// The caches as they were at snapshots.
    pub views: Views,
    /// What takes pushes, by the names of the caches that take any.
    pub ingests: BTreeMap<String, Arc<Ingest>>,
    /// What fetches from elsewhere, by the names of the caches that do.
    pub pullers: BTreeMap<String, Arc<Puller>>,
    /// How many uploads may run at once.
    pub uploads: UploadSlots,
    /// Who may do what.
    pub gate: Gate,
    /// Tokens, and who pushed what; `None` where it cannot be used, and then nobody may push.
    pub state_db: Option<Arc<StateDb>>,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// The threads that read the local store.
    pub readers: Arc<ReadPool>,
    /// What the listener counted.
    pub connections: Arc<ConnectionStats>,
    /// What the caches lie on, and what is wrong with it.
    pub watch: Arc<Watch>,
    /// How long the body of a request may pause.
    pub body_timeout: Duration,
    /// Whether every request is a line in the log.
    pub log_requests: bool,
    /// Whether there are pages for people.
    pub landing_page: bool,
    /// Who sees more there than how to use the cache.
    pub status_for: Audience,
    /// The version, those of libraries, and the limits, for people.
    pub about: Vec<(&'static str, String)>,
    /// Leave to use the blocking pool, in two classes, so that listings and whole files never keep
    /// a narinfo waiting.
    pub small_work: Arc<Semaphore>,
    /// See [`Self::small_work`].
    pub large_work: Arc<Semaphore>,
    /// How long a request waits for leave before it is told to come back.
    pub patience: Duration,
}

/// The classes of blocking work.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Microseconds to a few milliseconds: narinfo, opening a NAR, a log.
    Small,
    /// Walks and decoding: listings, one file out of a NAR.
    Large,
    /// What changes something; it counts with the small work.
    Change,
}

impl Work {
    /// How long a client is kept waiting for it: a disk that does not answer must not hang those who
    /// ask for a narinfo. The work itself cannot be broken off, and keeps its leave until it ends.
    const fn deadline(self) -> Option<Duration> {
        match self {
            Self::Small => Some(Duration::from_secs(10)),
            // A verification of all that is there takes what it takes, and who changes something must
            // know what became of it.
            Self::Large | Self::Change => None,
        }
    }
}

impl State {
    /// What fetches what `cache` does not have, for a request that may start that.
    ///
    /// Who asks with HEAD wants to know what to push; a peer wants what is here, and would ask itself by way of us;
    /// and a view has what it had.
    pub fn puller(
        &self,
        cache: &Cache,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<&Arc<Puller>> {
        let wants_what_is_here = || {
            let directives = headers.get_all(CACHE_CONTROL).iter();
            directives.filter_map(|value| value.to_str().ok()).any(|value| {
                value.split(',').any(|one| one.trim().eq_ignore_ascii_case(ONLY_WHAT_IS_HERE))
            })
        };
        if self.pullers.is_empty() || *method != Method::GET || cache.snapshot.is_some() {
            return None;
        }
        self.pullers.get(&cache.name).filter(|_| !wants_what_is_here())
    }

    /// Runs `work` on the blocking pool.
    pub async fn blocking<T: Send + 'static>(
        &self,
        class: Work,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let semaphore = match class {
            Work::Small | Work::Change => &self.small_work,
            Work::Large => &self.large_work,
        };
        let leave = Arc::clone(semaphore).acquire_owned();
        let leave = tokio::time::timeout(self.patience, leave).await;
        let Ok(Ok(leave)) = leave else { return Err(Failure::Busy("too much to do; ask again")) };
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(leave);
            done
        });
        let done = match class.deadline() {
            None => work.await,
            Some(deadline) => tokio::time::timeout(deadline, work)
                .await
                .map_err(|_| Failure::Busy("the disks do not answer; ask again"))?,
        };
        done.map_err(|error| Failure::Internal(format!("blocking work failed: {error}")))
    }

    /// Scans, in the background, what has changed in a cache.
    pub fn scan_in_background(cache: &Arc<Cache>) {
        if cache.needs_scan() {
            let cache = Arc::clone(cache);
            tokio::task::spawn_blocking(move || cache.scan());
        }
    }
}

/// What a response is counted as.
#[derive(Clone, Copy, Debug)]
pub struct CountAs {
    /// The endpoint.
    pub route: Route,
    /// How its bytes are encoded.
    pub encoding: EncodingLabel,
}

impl CountAs {
    /// An answer that is no NAR.
    pub const fn route(route: Route) -> Self {
        Self { route, encoding: EncodingLabel::Other }
    }
}

/// The cache that a request names, `/c/<cache>/…` or the default one, once it was let in.
///
/// One that does not exist is the same 404 as an object that does not.
pub struct CacheOf(pub Arc<Cache>);

impl FromRequestParts<Arc<State>> for CacheOf {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Failure> {
        let admitted = parts.extensions.get::<Admitted>().ok_or(Failure::NotFound)?;
        Ok(Self(Arc::clone(&admitted.cache)))
    }
}

/// The parts of a path by name; each endpoint parses its own.
pub struct Params(Vec<(String, String)>);

impl Params {
    /// A part; empty where the route has none of that name.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl FromRequestParts<Arc<State>> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Failure> {
        let raw = raw_params(parts, state).await?;
        Ok(Self(raw.iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

async fn raw_params(parts: &mut Parts, state: &Arc<State>) -> Result<RawPathParams, Failure> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Failure::BadRequest("the path is not UTF-8"))
}
