//! Drains the spool: what hooks put in is pushed, until the server has acknowledged it.
//!
//! Several entries go in one push. What the server cannot take now stays in the queue, and the server
//! is asked again after a while that doubles, up to five minutes; then the entries go one by one, those
//! that failed last behind all others, so that one which the server chokes on holds up nobody. What
//! will never go well is parked with its reason: a path that is not valid any more or differs from
//! what was registered, and what the server refuses by name. A wrong token or address is nobody's
//! fault in the queue, so it parks nothing.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::closure::{ClosureError, LocalPaths};
use super::events::Events;
use super::hold;
use super::notice::Notice;
use super::push::{Push, PushError, PushSettings};
use super::remote::{Remote, RemoteError};
use super::retry::{Backoff, Stop, random};
use super::spool::{Claim, Entry, Spool};
use crate::metrics::agent::{AgentMetrics, EntryResult};
use crate::native::MissingRequest;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StorePath, StorePathHash};

/// The most entries in one push.
const BATCH: usize = 64;
/// How often the spool is looked at without anybody saying that there is something.
const SLOW_POLL: Duration = Duration::from_secs(30);
/// How often roots are looked for that belong to no entry. One that cannot be removed is found again
/// each time, and pushed in vain, so this is not often.
const ADOPT_EVERY: Duration = Duration::from_secs(3600);
/// What cannot be taken out of the spool comes again at once; not to spin, there is a pause.
const SPOOL_PAUSE: Duration = Duration::from_secs(10);

/// How an agent works.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// How it pushes. Its patience is for one request: beyond it, the agent waits on its own.
    pub push: PushSettings,
    /// Whether the derivations are pushed too, with all that they were built from.
    pub include_drv: bool,
    /// Where the hook makes its roots.
    pub roots: PathBuf,
}

/// Drains a spool.
pub struct Agent<'a> {
    /// What is drained.
    pub spool: &'a Spool,
    /// Where to.
    pub remote: &'a Remote,
    /// Where from.
    pub paths: &'a LocalPaths,
    /// How.
    pub settings: &'a AgentSettings,
    /// Who may end it.
    pub stop: &'a Stop,
    /// What is counted.
    pub metrics: &'a AgentMetrics,
    /// When it last showed a sign of life.
    pub pulse: &'a Pulse,
}

/// When something last moved.
#[derive(Debug)]
pub struct Pulse(Mutex<Instant>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Pulse {
    /// How long ago it was.
    pub fn age(&self) -> Duration {
        self.lock().elapsed()
    }

    fn beat(&self) {
        *self.lock() = Instant::now();
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry that is being pushed.
struct Item {
    claim: Claim,
    outs: usize,
    roots: Vec<StorePath>,
}

/// What came of a batch.
enum Outcome {
    /// Each entry was acknowledged or parked.
    Done,
    /// What is left stays in the queue.
    Again { why: String, after: Option<Duration> },
    /// We are to end.
    Stopped,
}

impl Agent<'_> {
    /// Drains until it is stopped.
    pub fn run(&self, notice: &Notice) {
        let mut backoff = Backoff::default();
        let mut batch = BATCH;
        // Those that failed: behind all others.
        let mut behind: HashSet<String> = HashSet::new();
        let mut adopted: Option<Instant> = None;
        while !self.stop.is_stopped() {
            self.pulse.beat();
            if adopted.is_none_or(|last| last.elapsed() >= ADOPT_EVERY) {
                adopted = Some(Instant::now());
                if let Err(error) = self.adopt_roots(SystemTime::now()) {
                    tracing::warn!("the roots {}: {error}", self.settings.roots.display());
                }
            }
            let claims = match self.look(batch, &behind) {
                Ok(claims) => claims,
                Err(error) => {
                    tracing::error!("the spool {}: {error}", self.spool.directory().display());
                    self.stop.wait(backoff.next(random(), None));
                    continue;
                }
            };
            if claims.is_empty() {
                if behind.is_empty() {
                    notice.wait(SLOW_POLL);
                }
                behind.clear();
                continue;
            }
            let ids: Vec<String> = claims.iter().map(|claim| claim.id.clone()).collect();
            match self.push(claims) {
                Outcome::Done => {
                    backoff.reset();
                    batch = (batch * 2).min(BATCH);
                    self.note(None);
                }
                Outcome::Again { why, after } => {
                    let wait = backoff.next(random(), after);
                    tracing::warn!(wait_s = wait.as_secs(), "not pushed, tried again: {why}");
                    self.note(Some(&why));
                    batch = 1;
                    behind.extend(ids);
                    self.count();
                    self.stop.wait(wait);
                }
                Outcome::Stopped => break,
            }
            self.count();
        }
    }

    fn look(&self, batch: usize, behind: &HashSet<String>) -> std::io::Result<Vec<Claim>> {
        self.spool.adopt(SystemTime::now())?;
        self.count();
        self.spool.take(batch, |id| behind.contains(id))
    }

    /// Queues what hooks have kept and could not queue.
    fn adopt_roots(&self, now: SystemTime) -> std::io::Result<()> {
        // In this order: the entry of a root is there before the root is old.
        let roots = hold::settled(&self.settings.roots, now)?;
        let known = self.spool.known()?;
        for (id, outs) in roots.into_iter().filter(|(id, _)| !known.contains(id)) {
            tracing::info!(id, "queued what its hook could not queue");
            let time = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.spool.append(&id, &Entry { time, drv: None, outs })?;
        }
        Ok(())
    }

    /// Brings the gauges up to date.
    fn count(&self) {
        if let Ok((waiting, parked, oldest)) = self.spool.depth() {
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.queue_depth.set(number(waiting));
            self.metrics.parked.set(number(parked));
            let oldest = oldest.and_then(|time| i64::try_from(time).ok());
            self.metrics.queue_oldest.set(oldest.unwrap_or(0));
        }
    }

    fn note(&self, error: Option<&str>) {
        if let Err(error) = self.spool.set_last_error(error) {
            tracing::warn!("the spool {}: {error}", self.spool.directory().display());
        }
    }

    /// Pushes entries, until each is acknowledged or parked, or the server cannot now.
    fn push(&self, claims: Vec<Claim>) -> Outcome {
        let mut items: Vec<Item> =
            claims.into_iter().filter_map(|claim| self.understand(claim)).collect();
        loop {
            let mut roots: Vec<StorePath> =
                items.iter().flat_map(|item| item.roots.iter().cloned()).collect();
            roots.sort_unstable();
            roots.dedup();
            if roots.is_empty() {
                return Outcome::Done;
            }
            let push = Push {
                remote: self.remote,
                paths: self.paths,
                settings: &self.settings.push,
                stop: self.stop,
                events: self,
            };
            match push.run(&roots) {
                Ok(summary) => {
                    self.metrics.pushed_paths.inc_by(summary.pushed.len() as u64);
                    let (pushed, present) = (summary.pushed.len(), summary.present);
                    let upstream = summary.upstream;
                    tracing::info!(entries = items.len(), pushed, present, upstream, "pushed");
                    items.into_iter().for_each(|item| self.acknowledge(item));
                    return Outcome::Done;
                }
                Err(PushError::Stopped) => return Outcome::Stopped,
                Err(error) => match self.blame(items, &error) {
                    Some(rest) => items = rest,
                    None => {
                        self.metrics.entry(EntryResult::Retried);
                        let after = error.retry_after();
                        return Outcome::Again { why: error.to_string(), after };
                    }
                },
            }
        }
    }

    /// What an entry says, if it says something of this store.
    fn understand(&self, claim: Claim) -> Option<Item> {
        let roots = match &claim.entry {
            Ok(entry) => self.roots_of(entry),
            Err(reason) => Err(reason.clone()),
        };
        match roots {
            Ok((outs, roots)) => Some(Item { claim, outs, roots }),
            Err(reason) => {
                self.park(claim, &reason);
                None
            }
        }
    }

    fn roots_of(&self, entry: &Entry) -> Result<(usize, Vec<StorePath>), String> {
        let drv = entry.drv.iter().filter(|_| self.settings.include_drv);
        let store_dir = &self.paths.layout().store_dir;
        let paths = entry.outs.iter().chain(drv).map(|path| store_dir.parse_path(path));
        let paths = paths.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok((entry.outs.len(), paths))
    }

    /// Parks those entries that the error is about, and gives back the others; none if it is about no
    /// entry, or it cannot be told which.
    fn blame(&self, items: Vec<Item>, error: &PushError) -> Option<Vec<Item>> {
        let culprits = error.culprits();
        if culprits.is_empty() {
            // Alone, an entry is to blame for what is refused without a name.
            return match <[Item; 1]>::try_from(items) {
                Ok([item]) if is_about_the_request(error) => {
                    self.park(item.claim, &error.to_string());
                    Some(Vec::new())
                }
                _ => None,
            };
        }
        let mut rest = Vec::new();
        let before = items.len();
        for item in items {
            match self.guilt(&item, &culprits) {
                Ok(None) => rest.push(item),
                Ok(Some(reason)) => self.condemn(item, &reason),
                // Whether it is to blame cannot be told now.
                Err(_) => return None,
            }
        }
        if rest.len() < before { Some(rest) } else { None }
    }

    /// Why `item` cannot be pushed, if one of `culprits` is in it.
    fn guilt(
        &self,
        item: &Item,
        culprits: &[(StorePathHash, String)],
    ) -> Result<Option<String>, ClosureError> {
        let named = |hash: StorePathHash| culprits.iter().find(|(culprit, _)| *culprit == hash);
        if let Some((_, reason)) = item.roots.iter().find_map(|root| named(root.hash())) {
            return Ok(Some(reason.clone()));
        }
        let closure = match self.paths.closure(&item.roots) {
            Ok(closure) => closure,
            Err(error @ ClosureError::Invalid(_)) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let found = closure.iter().find_map(|info| Some((info, named(info.path.hash())?)));
        Ok(found.map(|(info, (_, reason))| format!("{}: {reason}", info.path)))
    }

    /// Parks an entry, unless the server has it: then it does not matter that we have it no more.
    fn condemn(&self, item: Item, reason: &str) {
        let paths = item.roots.iter().map(StorePath::hash).collect();
        match self.remote.missing(&MissingRequest { paths, ..MissingRequest::default() }) {
            Ok(answer) if answer.missing.is_empty() => self.acknowledge(item),
            _ => self.park(item.claim, reason),
        }
    }

    fn acknowledge(&self, item: Item) {
        let (id, outs) = (item.claim.id.clone(), item.outs);
        // The entry goes first: an entry without roots would be lost, roots without one cost space.
        if let Err(error) = self.spool.acknowledge(item.claim) {
            tracing::error!(id, "acknowledged, but still in the spool: {error}");
            self.stop.wait(SPOOL_PAUSE);
            return;
        }
        if let Some(error) = hold::release(&self.settings.roots, &id, outs) {
            let roots = self.settings.roots.display();
            tracing::warn!(id, "its roots in {roots} cannot be removed: {error}");
        }
        self.metrics.entry(EntryResult::Acknowledged);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.metrics.last_success.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    fn park(&self, claim: Claim, reason: &str) {
        let id = claim.id.clone();
        tracing::error!(id, "parked: {reason}");
        match self.spool.park(claim, reason) {
            Ok(()) => self.metrics.entry(EntryResult::Parked),
            Err(error) => {
                tracing::error!(id, "it cannot be parked: {error}");
                self.stop.wait(SPOOL_PAUSE);
            }
        }
    }
}

/// Whether a refusal is about what was asked, rather than about who asks, or where.
const fn is_about_the_request(error: &PushError) -> bool {
    matches!(
        error,
        PushError::Remote(RemoteError::Refused { status: 400 | 409 | 411 | 413 | 415 | 422, .. })
    )
}

impl Events for Agent<'_> {
    fn moved(&self, _nar_bytes: i64) {
        self.pulse.beat();
    }

    fn sent(&self, bytes: u64) {
        self.pulse.beat();
        self.metrics.sent_bytes.inc_by(bytes);
    }

    fn uploaded(&self, info: &PathInfo) {
        self.pulse.beat();
        self.metrics.upload(true);
        tracing::debug!(path = %info.path, "uploaded");
    }

    fn failed(&self, info: &PathInfo, why: &str) {
        self.metrics.upload(false);
        tracing::warn!(path = %info.path, "not uploaded: {why}");
    }

    fn waiting(&self, error: &RemoteError, wait: Duration) {
        self.pulse.beat();
        self.metrics.waits.inc();
        tracing::info!(wait_ms = wait.as_millis(), "asked again soon: {error}");
    }

    fn note(&self, line: &str) {
        tracing::debug!("{line}");
    }
}

#[cfg(test)]
mod tests;
