//! Has caches collected: on their schedule, and whenever the command line asks ([`What`]); what it asks to be verified
//! is handed on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::verifying::{Asked, Waiting};
use super::{AppError, banks, cache_info, parts};
use crate::bank::{Bank, BankError};
use crate::config::{CacheConfig, Config};
use crate::http::state::State;
use crate::index::places::KnownPlaces;
use crate::index::state::{Job, StateDb, StateError};
use crate::index::uses::BATCHES;
use crate::ingest::Expiry;
use crate::keep::collect::policy::Policy;
use crate::keep::collect::select::Named;
use crate::keep::collect::{CollectError, Collected, Collector, Plan};
use crate::metrics::Metrics;
use crate::nix::store_path::{StoreDir, StorePathHash};
use crate::sign::KeyRing;
use crate::source::behind::behind_requests;
use crate::source::cache::Cache;
use crate::source::{BankSource, Source};

/// How often it is looked for something to do. Looking costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what was asked for is written to the state database.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// Collect now.
    Collect,
    /// Remove paths that are named.
    Remove {
        /// Which ones.
        paths: Vec<StorePathHash>,
        /// With all that only these need.
        closure: bool,
        /// With all that refers to these.
        referrers: bool,
        /// Who says so.
        by: String,
    },
}

/// How far a collection is, or what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Paths that the cache had.
    pub total: u64,
    /// Paths that are to go.
    pub planned: u64,
    /// Paths that went.
    pub removed: u64,
    /// Bytes on disk that were freed.
    pub bytes: u64,
    /// Paths that were to go and stayed, because somebody wanted them meanwhile.
    pub wanted_again: u64,
    /// Files that belonged to no path, and went.
    pub strays: u64,
    /// What could not be removed.
    pub failed: u64,
    /// Paths whose narinfo cannot be read; they are left alone.
    pub unreadable: u64,
    /// Of a dry run: how many of the bytes snapshots keep, so that these return only when the snapshots are gone.
    #[serde(default)]
    pub bytes_in_snapshots: u64,
    /// Of a dry run: these snapshots, oldest first.
    #[serde(default)]
    pub snapshots: Vec<KeptBySnapshot>,
    /// Why it did not come to its end.
    pub error: Option<String>,
}

/// What a snapshot keeps of what would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBySnapshot {
    /// Its name, without the dataset's.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How much it keeps, in bytes on disk; others may keep the same.
    pub bytes: u64,
    /// How many holds keep it from being destroyed.
    pub holds: u64,
    /// The clones that do, as ZFS names them.
    pub clones: Option<String>,
}

impl Said {
    fn add(&mut self, collected: &Collected) {
        let Collected { paths, bytes, wanted_again, failed, strays } = *collected;
        (self.removed, self.bytes, self.wanted_again) = (paths, bytes, wanted_again);
        (self.failed, self.strays) = (failed, strays);
    }
}

/// What would be done.
pub fn plan<'a>(
    collector: &Collector<'a>,
    what: &What,
    policy: &Policy,
    now: i64,
) -> Result<(Plan<'a>, Said), CollectError> {
    let plan = match what {
        What::Collect => collector.plan(policy, now)?,
        What::Remove { paths, closure, referrers, by } => {
            let named =
                Named { paths: paths.clone(), with_closure: *closure, with_referrers: *referrers };
            collector.plan_removal(&named, by, now)?
        }
    };
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let said = Said {
        total: count(plan.total()),
        planned: count(plan.paths().len()),
        unreadable: count(plan.damaged().len()),
        ..Said::default()
    };
    Ok((plan, said))
}

/// Does it. `goes_on` hears how far it is, now and then, and says whether it is to go on. Blocks.
pub fn carry_out(
    collector: &Collector<'_>,
    what: &What,
    policy: &Policy,
    now: i64,
    goes_on: &dyn Fn(&Said) -> bool,
) -> Result<Said, CollectError> {
    if *what == What::Collect {
        collector.state.end_revisions(&collector.cache.name, now)?;
    }
    let (plan, mut said) = plan(collector, what, policy, now)?;
    if !goes_on(&said) {
        return Ok(said);
    }
    let base = said.clone();
    let collected = collector.carry_out(&plan, &|collected| {
        let mut said = base.clone();
        said.add(collected);
        goes_on(&said)
    })?;
    said.add(&collected);
    Ok(said)
}

/// Does all of it, for ever.
pub(super) async fn keep_collecting(config: &Config, state: &Arc<State>, to_verify: &Arc<Waiting>) {
    let Some(db) = state.state_db.clone() else { return std::future::pending().await };
    let stops = Arc::new(AtomicBool::new(false));
    let _stop = StopOnDrop(Arc::clone(&stops));
    let rounds = Arc::new(Mutex::new(Rounds::new(config, db, stops, Arc::clone(to_verify))));
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (rounds, state) = (Arc::clone(&rounds), Arc::clone(state));
        let done = tokio::task::spawn_blocking(move || {
            rounds.lock().unwrap_or_else(PoisonError::into_inner).round(&state);
        });
        if done.await.is_err() {
            tracing::error!("a round of collecting failed");
        }
    }
}

/// Has a collection end soon after its server does.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Rounds {
    db: Arc<StateDb>,
    version: Option<i64>,
    kept: Instant,
    schedules: BTreeMap<String, Schedule>,
    stops: Arc<AtomicBool>,
    to_verify: Arc<Waiting>,
}

/// When a cache is collected.
struct Schedule {
    policy: Policy,
    /// Whether the clock can be believed.
    clock: Expiry,
    last: Instant,
}

impl Rounds {
    fn new(
        config: &Config,
        db: Arc<StateDb>,
        stops: Arc<AtomicBool>,
        to_verify: Arc<Waiting>,
    ) -> Self {
        let now = Instant::now();
        let schedule = |cache: &CacheConfig| {
            let policy = cache.collect;
            // A jump makes all ages wrong, those below `keep_at_least` first.
            let clock = Expiry::new(policy.keep_at_least.max(KEEP_EVERY));
            let last = last(&db, &cache.name, now);
            (cache.name.clone(), Schedule { policy, clock, last })
        };
        let schedules = config.caches.iter().map(schedule).collect();
        if let Err(error) = db.clear_jobs(Timestamp::now().as_second()) {
            tracing::warn!("what was asked for before is not forgotten: {error}");
        }
        Self { db, version: None, kept: now, schedules, stops, to_verify }
    }

    fn round(&mut self, state: &State) {
        if self.kept.elapsed() >= KEEP_EVERY {
            self.keep_uses(state);
        }
        self.do_jobs(state);
        let due: Vec<String> = self
            .schedules
            .iter_mut()
            .filter_map(|(name, schedule)| {
                let may_judge = schedule.clock.may_judge(Instant::now(), SystemTime::now());
                let every = schedule.policy.every?;
                (may_judge && schedule.last.elapsed() >= every).then(|| name.clone())
            })
            .collect();
        for name in due {
            self.carry_out(state, &name, &What::Collect, &|_| true);
        }
    }

    /// Writes what was asked for to the database.
    fn keep_uses(&mut self, state: &State) {
        self.kept = Instant::now();
        for (name, cache) in &state.caches {
            for number in 0..BATCHES {
                let batch = cache.uses().batch(number);
                if batch.is_empty() {
                    continue;
                }
                match self.db.keep_uses(name, &batch) {
                    Ok(()) => cache.uses().forget(number, &batch),
                    Err(error) => {
                        tracing::warn!(cache = name, "what was asked for is not kept yet: {error}");
                    }
                }
            }
        }
    }

    fn do_jobs(&mut self, state: &State) {
        // As cheap as it is to be asked each second; an error is met again by whoever takes the job.
        let version = self.db.data_version().ok();
        if version.is_some() && version == self.version {
            return;
        }
        self.version = version;
        loop {
            match self.db.take_job(Timestamp::now().as_second()) {
                Ok(Some(job)) => self.do_job(state, &job),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!("what the command line asks for cannot be read: {error}");
                    return;
                }
            }
        }
    }

    fn do_job(&mut self, state: &State, job: &Job) {
        if let Ok(how) = serde_json::from_str(&job.what) {
            self.to_verify.add(Asked { job: job.clone(), how });
            return;
        }
        let db = Arc::clone(&self.db);
        let told = Mutex::new(Instant::now());
        let say = |said: &Said| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.elapsed() >= LOOK_EVERY {
                *told = Instant::now();
                // Whoever asked waits for the end, and that is told for certain.
                let _ = db.say(job.number, &to_json(said));
            }
            true
        };
        let said = match serde_json::from_str::<What>(&job.what) {
            Ok(what) => self.carry_out(state, &job.cache, &what, &say),
            Err(error) => refused(format!("this server does not know what is asked: {error}")),
        };
        if let Err(error) = db.end_job(job.number, &to_json(&said), Timestamp::now().as_second()) {
            tracing::warn!("what came of it cannot be told: {error}");
        }
    }

    fn carry_out(
        &mut self,
        state: &State,
        name: &str,
        what: &What,
        say: &(dyn Fn(&Said) -> bool + Sync),
    ) -> Said {
        // What was asked for until now counts.
        self.keep_uses(state);
        let Some(schedule) = self.schedules.get_mut(name) else {
            return refused(format!("there is no cache {name}"));
        };
        if *what == What::Collect {
            schedule.last = Instant::now();
            // Also if it fails: it is not tried every second.
            if let Err(error) = self.db.note_collected(name, Timestamp::now().as_second()) {
                tracing::warn!(cache = name, "when it was collected is not noted: {error}");
            }
        }
        if !schedule.clock.may_judge(Instant::now(), SystemTime::now()) {
            return refused("the clock jumped a moment ago, so nothing is taken for old".into());
        }
        let own = state.caches.get(name).and_then(|cache| Some((cache, cache.own_bank()?)));
        let Some((cache, source)) = own else {
            return refused(format!("the cache {name} has no bank of its own"));
        };
        let Source::Bank(bank) = &**source else { return refused("it is no bank".into()) };
        let ingest = state.ingests.get(name).map(|ingest| &**ingest);
        let collector = Collector { cache, source, bank: bank.bank(), ingest, state: &self.db };
        let (policy, stops) = (schedule.policy, &self.stops);
        let goes_on = |said: &Said| !stops.load(Ordering::Acquire) && say(said);
        let (now, began) = (Timestamp::now().as_second(), Instant::now());
        match behind_requests(|| carry_out(&collector, what, &policy, now, &goes_on)) {
            Ok(said) => {
                let Said { removed, bytes, strays, failed, .. } = said;
                tracing::info!(cache = name, removed, bytes, strays, failed, "collected");
                let counts = (removed, bytes, failed);
                state.metrics.collect.collected(name, counts, now, began.elapsed());
                said
            }
            Err(error) => {
                tracing::warn!(cache = name, "not collected: {error}");
                state.metrics.collect.failed(name);
                refused(error.to_string())
            }
        }
    }
}

/// When a cache was last collected, however often the server was started since; where that is not known it counts from
/// now.
fn last(db: &StateDb, cache: &str, now: Instant) -> Instant {
    let wall = Timestamp::now().as_second();
    let ago = match db.collected_at(cache) {
        Ok(Some(at)) => u64::try_from(wall.saturating_sub(at)).unwrap_or(0),
        Ok(None) => {
            if let Err(error) = db.note_collected(cache, wall) {
                tracing::warn!(cache, "when it is to be collected is not noted: {error}");
            }
            0
        }
        Err(error) => {
            tracing::warn!(cache, "when it was last collected is not known: {error}");
            0
        }
    };
    now.checked_sub(Duration::from_secs(ago)).unwrap_or(now)
}

fn refused(error: String) -> Said {
    Said { error: Some(error), ..Said::default() }
}

/// Numbers and a text: there is nothing in it that JSON cannot hold.
fn to_json(said: &Said) -> String {
    serde_json::to_string(said).unwrap_or_default()
}

/// Asks a server on this data directory to do something: [`What`], or
/// [`verifying::How`](super::verifying::How). Says the number of the job.
pub fn ask(db: &StateDb, cache: &str, what: &impl Serialize, now: i64) -> Result<i64, StateError> {
    db.ask(cache, &serde_json::to_string(what).unwrap_or_default(), now)
}

/// A cache as its files are, for whoever collects it while no server runs.
pub struct Offline {
    cache: Cache,
    source: Arc<Source>,
    bank: Arc<Bank>,
}

impl Offline {
    /// Only to be looked at, while a server may run.
    pub fn to_look_at(cache: &CacheConfig) -> Result<Self, AppError> {
        let store_dir = Bank::store_dir_at(&cache.directory)
            .ok_or_else(|| BankError::Away(cache.directory.clone()))?;
        let bank = Bank::of_others(cache.directory.clone(), cache_info(cache, &store_dir));
        Self::of(cache, Arc::new(bank), store_dir)
    }

    /// To be collected, while no server runs.
    pub fn to_collect(
        config: &Config,
        cache: &CacheConfig,
        db: &StateDb,
    ) -> Result<Self, AppError> {
        let store_dir = Bank::store_dir_at(&cache.directory)
            .ok_or_else(|| BankError::Away(cache.directory.clone()))?;
        let bank = banks::open(config, cache, &store_dir, Some(db))?;
        Self::of(cache, bank, store_dir)
    }

    fn of(cache: &CacheConfig, bank: Arc<Bank>, store_dir: StoreDir) -> Result<Self, AppError> {
        let source = BankSource::new(Arc::clone(&bank), store_dir.clone());
        let source = Arc::new(Source::Bank(source));
        let mut sources = vec![Arc::clone(&source)];
        sources.extend(parts::open(cache, &store_dir, &Arc::new(KnownPlaces::new(None)))?);
        let (name, info) = (cache.name.clone(), cache_info(cache, &store_dir));
        let metrics = Arc::new(Metrics::new()?);
        let cache = Cache::new(name, info, sources, KeyRing::default(), 0, metrics);
        Ok(Self { cache, source, bank })
    }

    /// The cache, with the sources that can be read without a server.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Its own bank, as a source of it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What lies there.
    pub const fn bank(&self) -> &Arc<Bank> {
        &self.bank
    }

    /// What collects it.
    pub fn collector<'a>(&'a self, state: &'a StateDb) -> Collector<'a> {
        let Self { cache, source, bank } = self;
        Collector { cache, source, bank, ingest: None, state }
    }
}
