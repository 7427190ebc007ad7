//! What the page at `/` shows, collected: all that blocks is here, and nothing of how it looks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::http::state::State;
use crate::index::state::{FindingRecord, PushRecord, StateDb, StateError, Verification};
use crate::index::uses::Use;
use crate::keep::watch::{Report, Trouble};
use crate::metrics::SourceLabel;
use crate::metrics::history::Interval;
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::source::cache::Cache;

/// Pushes, and paths that are asked for, in a list.
const LISTED: u32 = 15;
/// Findings in a list.
const FINDINGS: usize = 10;

/// How the server is.
pub(super) struct Status {
    /// Seconds since 1970.
    pub(super) now: i64,
    /// What came and went.
    pub(super) intervals: Vec<Interval>,
    /// What is wrong with caches that may be seen.
    pub(super) troubles: Vec<Trouble>,
    /// The caches that may be seen.
    pub(super) caches: Vec<CacheStatus>,
    /// What ZFS says.
    pub(super) report: Arc<Report>,
    /// What was pushed to the page's own cache, the newest first.
    pub(super) pushes: Known<Vec<PushRecord>>,
    /// What is asked for most in it.
    pub(super) asked_for: Known<Vec<(StorePath, Use)>>,
    /// The version, and those of the libraries that read what others send; and the limits.
    pub(super) about: Vec<(&'static str, String)>,
}

/// What the state database knows; an error is in the log.
pub(super) type Known<T> = Result<T, NotKnown>;

/// The state database cannot be read.
#[derive(Debug)]
pub(super) struct NotKnown;

/// How a cache is.
pub(super) struct CacheStatus {
    pub(super) name: String,
    pub(super) sources: Vec<SourceStatus>,
    /// Files that cannot be read, and are answered as not there.
    pub(super) quarantined: usize,
    /// When it was last collected.
    pub(super) collected: Known<Option<i64>>,
    pub(super) verification: Known<Option<Verification>>,
    /// What verification found: how much, and the first of it.
    pub(super) findings: Known<(usize, Vec<FindingRecord>)>,
    /// Caches elsewhere that are asked for what is not here.
    pub(super) places: Vec<PlaceStatus>,
}

/// What a source has.
pub(super) struct SourceStatus {
    pub(super) name: String,
    pub(super) is_there: bool,
    pub(super) paths: usize,
    pub(super) nar_bytes: Option<u64>,
}

/// A cache elsewhere.
pub(super) struct PlaceStatus {
    pub(super) url: String,
    pub(super) kind: SourceLabel,
    pub(super) answers: bool,
}

/// Collects all of it, for the page of `cache`; `caches` are those that may be seen. Blocks, on the state database.
pub(super) fn status(state: &State, cache: &Cache, caches: &[Arc<Cache>]) -> Status {
    let now = Timestamp::now().as_second();
    let seen = |name: &str| caches.iter().any(|cache| cache.name == name);
    let troubles = state.watch.troubles();
    Status {
        now,
        intervals: state.metrics.history.until(now, state.metrics.traffic()),
        troubles: troubles.iter().filter(|trouble| seen(&trouble.cache)).cloned().collect(),
        caches: caches.iter().map(|cache| cache_status(state, cache)).collect(),
        report: state.watch.report(),
        pushes: ask(state, Vec::new(), |db| db.recent_pushes(&cache.name, LISTED)),
        asked_for: ask(state, Vec::new(), |db| most_asked_for(db, cache)),
        about: state.about.clone(),
    }
}

fn cache_status(state: &State, cache: &Cache) -> CacheStatus {
    let name = cache.name.as_str();
    let sources = cache.sources().iter().map(|source| SourceStatus {
        name: source.name().to_owned(),
        is_there: source.is_there() && source.vital().is_well(),
        paths: source.presence().len(),
        nar_bytes: source.nar_bytes(),
    });
    let held = cache.sources().iter().filter_map(|source| source.quarantine());
    let places = state.pullers.get(name).map_or(&[][..], |puller| puller.places());
    let places = places.iter().map(|place| PlaceStatus {
        url: place.url().to_owned(),
        kind: place.kind(),
        answers: place.answers(),
    });
    CacheStatus {
        name: name.to_owned(),
        sources: sources.collect(),
        quarantined: held.map(|held| held.len()).sum(),
        collected: ask(state, None, |db| db.collected_at(name)),
        verification: ask(state, None, |db| db.verification(name)),
        findings: ask(state, (0, Vec::new()), |db| {
            let mut findings = db.findings(name)?;
            let all = findings.len();
            findings.truncate(FINDINGS);
            Ok((all, findings))
        }),
        places: places.collect(),
    }
}

/// What the state database says; `nothing` where there is none.
fn ask<T>(
    state: &State,
    nothing: T,
    question: impl FnOnce(&StateDb) -> Result<T, StateError>,
) -> Known<T> {
    let Some(db) = &state.state_db else { return Ok(nothing) };
    question(db).map_err(|error| {
        tracing::error!("a page lacks what the state database knows: {error}");
        NotKnown
    })
}

/// The paths that are here and were asked for most. What was asked for in the last minute is not counted yet.
fn most_asked_for(db: &StateDb, cache: &Cache) -> Result<Vec<(StorePath, Use)>, StateError> {
    // The least of those that are kept is on top, and goes where there are too many.
    let mut most: BinaryHeap<Reverse<(u32, i64, StorePathHash)>> = BinaryHeap::new();
    db.each_use(&cache.name, |hash, used| {
        most.push(Reverse((used.count, used.last, hash)));
        if most.len() > LISTED as usize {
            most.pop();
        }
    })?;
    let most = most.into_sorted_vec().into_iter().filter_map(|Reverse((count, last, hash))| {
        let answer = cache.find(hash).ok().flatten()?;
        Some((answer.narinfo.info.path.clone(), Use { last, count }))
    });
    Ok(most.collect())
}
