//! Has caches verified: in the background, at idle priority, and whenever the command line asks.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::collecting::Offline;
use super::healing;
use crate::config::{CacheConfig, Config};
use crate::http::state::State;
use crate::index::state::{Job, StateDb, Verification};
use crate::ingest::nar::NarLimits;
use crate::keep::heal::Healer;
use crate::keep::verify::{Measure, Verified, Verifier, VerifyError};
use crate::metrics::verify::VerifyMetrics;
use crate::nix::nar::Limits;
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::sign::PublicKey;
use crate::source::cache::Cache;
use crate::source::{BankSource, Source};

/// How often it is looked whether a cache is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after the start a cache is verified that never was.
const FIRST_AFTER: Duration = Duration::from_secs(3600);
/// In the background it rests so many times as long as it reads.
const REST: u32 = 4;
/// But no longer than this at a time.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// How often whoever asked is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// What decoding one NAR may take at least, in bytes: more than an upload may by default.
const DECODER_MEMORY: u64 = 256 << 20;
/// Caches are due by up to so much of their interval earlier or later, so that not all nodes read at once.
const SPREAD: f64 = 1.0 / 6.0;

/// How far it is, or what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Paths that there were when it began.
    pub total: u64,
    /// Paths that were verified, also before it was interrupted.
    pub paths: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Paths that something was wrong with.
    pub found: u64,
    /// Of these, those that were mended.
    pub mended: u64,
    /// Why it did not come to its end.
    pub error: Option<String>,
}

impl From<Verified> for Said {
    fn from(verified: Verified) -> Self {
        let Verified { total, paths, bytes, found, mended, has_ended, .. } = verified;
        let error = (!has_ended).then(|| "it was interrupted: ask again, and it goes on".into());
        Self { total, paths, bytes, found, mended, error }
    }
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct How {
    /// Whether what can be is mended.
    pub repair: bool,
    /// Whether it is begun anew, rather than gone on with.
    pub anew: bool,
}

/// A job of the command line.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) job: Job,
    pub(super) how: How,
}

/// What waits to be verified.
#[derive(Default)]
pub(super) struct Waiting {
    queue: Mutex<VecDeque<Asked>>,
    more: Condvar,
    stops: AtomicBool,
}

impl Waiting {
    /// Has something verified before whatever goes on in the background.
    pub(super) fn add(&self, asked: Asked) {
        self.queue().push_back(asked);
        self.more.notify_all();
    }

    fn take(&self, within: Duration) -> Option<Asked> {
        self.wait(within);
        self.queue().pop_front()
    }

    /// Waits as long as nothing is asked for.
    fn wait(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut queue = self.queue();
        while queue.is_empty() && !self.stops() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.more.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_empty(&self) -> bool {
        self.queue().is_empty()
    }

    fn stops(&self) -> bool {
        self.stops.load(Ordering::Acquire)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does all of it, for ever.
pub(super) async fn keep_verifying(config: &Config, state: &Arc<State>, waiting: Arc<Waiting>) {
    let Some(db) = state.state_db.clone() else { return std::future::pending().await };
    let _stop = StopOnDrop(Arc::clone(&waiting));
    let (config, state) = (config.clone(), Arc::clone(state));
    let thread = std::thread::Builder::new().name("verify".into()).spawn(move || {
        // Behind everything else. Where the system refuses, it is merely not behind.
        let _ = rustix::process::nice(19);
        let (started, not_before) = (Instant::now(), BTreeMap::new());
        Background { config, state, db, waiting, started, not_before }.work();
    });
    if let Err(error) = thread {
        tracing::error!("nothing is verified: {error}");
    }
    std::future::pending().await
}

struct StopOnDrop(Arc<Waiting>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stops.store(true, Ordering::Release);
        self.0.more.notify_all();
    }
}

struct Background {
    config: Config,
    state: Arc<State>,
    db: Arc<StateDb>,
    waiting: Arc<Waiting>,
    started: Instant,
    /// Before when this process does not verify a cache again, whatever the clock says.
    not_before: BTreeMap<String, Instant>,
}

impl Background {
    fn work(&mut self) {
        self.say_what_is_known();
        while !self.waiting.stops() {
            if let Some(asked) = self.waiting.take(LOOK_EVERY) {
                self.answer(&asked);
            } else if let Some(cache) = self.config.caches.iter().find(|cache| self.is_due(cache)) {
                let cache = cache.clone();
                self.verify_behind(&cache);
            }
        }
    }

    /// Metrics of what earlier processes found.
    fn say_what_is_known(&self) {
        for name in self.state.caches.keys() {
            self.count_open(name);
            if let Ok(Some(Verification { ended: Some(ended), .. })) = self.db.verification(name) {
                self.state.metrics.verify.ended(name, ended);
            }
        }
    }

    fn count_open(&self, cache: &str) {
        // Whoever asks for them hears what is wrong with the database.
        if let Ok(findings) = self.db.findings(cache) {
            let mut paths: Vec<StorePathHash> = findings.iter().map(|found| found.hash).collect();
            paths.dedup();
            self.state.metrics.verify.open(cache, paths.len());
        }
    }

    fn is_due(&self, cache: &CacheConfig) -> bool {
        let has_bank = cache.sources.contains(&crate::config::Source::Bank);
        let Some(every) = cache.verify_every.filter(|_| has_bank) else { return false };
        if self.not_before.get(&cache.name).is_some_and(|time| Instant::now() < *time) {
            return false;
        }
        match self.db.verification(&cache.name) {
            Ok(None) => self.started.elapsed() >= every.min(FIRST_AFTER),
            Ok(Some(known)) => known.ended.is_none_or(|ended| {
                is_long_ago(ended, now(), every.mul_f64(1.0 + SPREAD * spread(&cache.name)))
            }),
            // It is tried again, and the log says so when it is.
            Err(_) => false,
        }
    }

    fn verify_behind(&mut self, cache: &CacheConfig) {
        let goes_on = |_: &Verified, took: Duration| {
            self.waiting.wait((took * REST).min(LONGEST_REST));
            !self.waiting.stops() && self.waiting.is_empty()
        };
        let every = cache.verify_every.unwrap_or_default();
        let rest = match self.verify(cache, How { repair: true, anew: false }, &goes_on) {
            Ok(Verified { has_ended: false, .. }) => return,
            Ok(Verified { paths, bytes, found, mended, .. }) => {
                tracing::info!(cache = cache.name, paths, bytes, found, mended, "verified");
                every / 2
            }
            Err(error) => {
                tracing::warn!(cache = cache.name, "not verified, and tried again: {error}");
                AGAIN_AFTER.min(every / 2)
            }
        };
        self.not_before.insert(cache.name.clone(), Instant::now() + rest);
    }

    fn answer(&self, asked: &Asked) {
        let Asked { job, how } = asked;
        let told = Cell::new(Instant::now());
        let goes_on = |verified: &Verified, _| {
            if told.get().elapsed() >= TELL_EVERY {
                told.set(Instant::now());
                // Whoever asked waits for the end, and that is told for certain.
                let _ = self.db.say(job.number, &to_json(&Said::from(*verified)));
            }
            !self.waiting.stops()
        };
        let said = match self.config.caches.iter().find(|cache| cache.name == job.cache) {
            Some(cache) => match self.verify(cache, *how, &goes_on) {
                Ok(verified) => Said::from(verified),
                Err(error) => Said { error: Some(error.to_string()), ..Said::default() },
            },
            None => {
                let error = Some(format!("there is no cache {}", job.cache));
                Said { error, ..Said::default() }
            }
        };
        let ended = self.db.end_job(job.number, &to_json(&said), now());
        if let Err(error) = ended {
            tracing::warn!("what came of it cannot be told: {error}");
        }
    }

    fn verify(
        &self,
        config: &CacheConfig,
        How { repair, anew }: How,
        goes_on: &dyn Fn(&Verified, Duration) -> bool,
    ) -> Result<Verified, VerifyError> {
        let own = self.state.caches.get(&config.name);
        let own = own.and_then(|cache| Some((cache, cache.own_bank()?)));
        // Without a bank of its own there is nothing to verify.
        let nothing = Verified { has_ended: true, ..Verified::default() };
        let Some((cache, source)) = own else { return Ok(nothing) };
        let Source::Bank(bank) = &**source else { return Ok(nothing) };
        let ingest = self.state.ingests.get(&config.name).map(|ingest| &**ingest);
        let healer = healing::healer(config, &self.state);
        let mend = |hash| healer.as_ref().is_some_and(|healer: &Healer| healer.heal_now(hash));
        let keys = keys(config, cache);
        let pulls = self.state.pullers.contains_key(&config.name);
        let is_here = |path: &StorePath| pulls || is_here(cache, path);
        let limits = ingest.map_or_else(|| limits(&self.config), |ingest| ingest.own_limits());
        let verifier = Verifier {
            cache,
            source,
            ingest,
            measure: measure(bank, limits, &keys, &is_here),
            state: &self.db,
            mend: repair.then_some(&mend),
        };
        let metrics = &self.state.metrics.verify;
        let verified = counted(&verifier, metrics, anew, goes_on);
        self.count_open(&config.name);
        verified
    }
}

fn counted(
    verifier: &Verifier<'_>,
    metrics: &VerifyMetrics,
    anew: bool,
    goes_on: &dyn Fn(&Verified, Duration) -> bool,
) -> Result<Verified, VerifyError> {
    let name = &verifier.cache.name;
    let each = |findings: &[crate::keep::verify::Finding]| match findings {
        [] => metrics.mended(name),
        _ => findings.iter().for_each(|finding| metrics.found(name, finding.kind.label())),
    };
    let count = |verified: &Verified, took| {
        metrics.path(name, verified.bytes_of_last);
        goes_on(verified, took)
    };
    let verified = verifier.run(anew, &now, &each, &count)?;
    if verified.has_ended {
        metrics.ended(name, now());
    }
    Ok(verified)
}

/// Verifies a cache while no server runs. What is damaged is not fetched from elsewhere then.
pub fn offline(
    config: &Config,
    settings: &CacheConfig,
    here: &Offline,
    (db, How { repair, anew }): (&StateDb, How),
    goes_on: &dyn Fn(&Said) -> bool,
) -> Result<Said, VerifyError> {
    let (cache, source) = (here.cache(), here.source());
    let Source::Bank(bank) = source else { return Ok(Said::default()) };
    let mut keys = keys(settings, cache);
    match super::load_keys(settings, &config.data_dir) {
        Ok(own) => keys.extend(own.public()),
        Err(error) => {
            tracing::warn!("signatures by the cache's own keys are not verified: {error}")
        }
    }
    let pulls = settings.pulls();
    // The host's own store is not open here.
    let has_store = settings.sources.contains(&crate::config::Source::Store);
    let is_here = |path: &StorePath| pulls || has_store || is_here(cache, path);
    let verifier = Verifier {
        cache,
        source,
        ingest: None,
        measure: measure(bank, limits(config), &keys, &is_here),
        state: db,
        mend: repair.then_some(&|_| false),
    };
    let goes_on = |verified: &Verified, _| goes_on(&Said::from(*verified));
    verifier.run(anew, &now, &|_| (), &goes_on).map(Said::from)
}

fn measure<'a>(
    bank: &'a BankSource,
    limits: NarLimits,
    keys: &'a [PublicKey],
    is_here: &'a dyn Fn(&StorePath) -> bool,
) -> Measure<'a> {
    // A limit that was lowered since makes no damage of what was taken before.
    let nar = Limits {
        max_size: i64::MAX.unsigned_abs(),
        max_entries: u64::MAX,
        max_depth: Limits::default().max_depth,
        ..limits.nar
    };
    let decoder_memory = limits.decoder_memory.max(DECODER_MEMORY);
    let limits = NarLimits { nar, decoder_memory, ..limits };
    Measure { bank: bank.bank(), store_dir: bank.store_dir(), limits, keys, is_here }
}

/// What lies here was taken once: its ratio is no reason to doubt it.
fn limits(config: &Config) -> NarLimits {
    NarLimits { nar: config.limits.nar(), max_ratio: u32::MAX, ..NarLimits::default() }
}

fn keys(config: &CacheConfig, cache: &Cache) -> Vec<PublicKey> {
    let mut keys = cache.keys().public();
    keys.extend(config.trusted_keys.iter().cloned());
    keys.extend(config.upstream_keys.iter().cloned());
    keys
}

/// Whether any source of the cache has the path, by its whole name; so it is where that cannot be found out.
fn is_here(cache: &Cache, path: &StorePath) -> bool {
    let mut found = cache.sources().iter().map(|source| source.find(path.hash()));
    found.any(|found| match found {
        Ok(Some(narinfo)) => narinfo.info.path == *path,
        Ok(None) => false,
        // Damaged is here, and a finding of its own.
        Err(_) => true,
    })
}

/// Whether something was longer ago than `every`. What is noted with a time to come was noted by a clock that was
/// wrong, nobody knows when.
fn is_long_ago(at: i64, now: i64, every: Duration) -> bool {
    u64::try_from(now.saturating_sub(at)).map_or(true, |ago| ago >= every.as_secs())
}

/// In seconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_second()
}

/// From -1 to 1, the same each time for a cache on a host.
fn spread(cache: &str) -> f64 {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let digest = crate::nix::hash::Sha256::of(format!("{host} {cache}").as_bytes());
    f64::from(digest.0[0]) / 127.5 - 1.0
}

/// Numbers and a text: there is nothing in it that JSON cannot hold.
fn to_json(said: &Said) -> String {
    serde_json::to_string(said).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_at_a_time_to_come_is_verified_again() {
        let day = Duration::from_secs(24 * 3600);
        assert!(!is_long_ago(1_000_000, 1_000_000, day));
        assert!(!is_long_ago(1_000_000, 1_086_399, day));
        assert!(is_long_ago(1_000_000, 1_086_400, day));
        assert!(is_long_ago(1_000_001, 1_000_000, day));
        assert!(is_long_ago(i64::MAX, i64::MIN, day) && is_long_ago(i64::MIN, i64::MAX, day));
    }
}
