//! Watching what the caches lie on: ZFS by its commands, now and then, and the disks all the time.
//!
//! Two threads. One asks `zfs` and `zpool`, which may take as long as their deadlines. The other
//! looks, twice a second, at the probes ([`super::probe`]) and at the kernel's own word on each pool,
//! which takes microseconds and works when all commands hang; it closes a cache whose disks do not
//! answer, before requests hang in it one by one. Who asks how things are reads memory.

mod report;
mod trouble;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

pub use self::report::{Lying, PoolReport, Report, datasets_of};
pub use self::trouble::{Severity, Trouble, judge};
use super::probe::{Probe, Pulse};
use crate::ingest::NoRoom;
use crate::metrics::Metrics;
use crate::zfs::pool::{Health, kernel_state};
use crate::zfs::{PoolName, Zfs};

/// How often probes and the kernel are looked at.
const PULSE_EVERY: Duration = Duration::from_millis(500);

/// A cache that is watched.
pub struct Watched {
    /// Its name.
    pub cache: String,
    /// Its bank.
    pub directory: PathBuf,
    /// The dataset that it must be, where the configuration says so.
    pub dataset: Option<crate::zfs::DatasetName>,
    /// Writes to it now and then, where it takes pushes.
    pub probe: Option<Probe>,
    /// Whether pushes to it are refused for want of room.
    pub no_room: Option<Arc<NoRoom>>,
    /// Closes the cache, with the reason, or opens it again.
    pub close: Box<dyn Fn(Option<String>) + Send + Sync>,
}

/// What the caches lie on, as it was when it was last looked at.
pub struct Watch {
    shared: Arc<Shared>,
    /// Dropped, they end the threads.
    _ends: [Sender<()>; 2],
}

struct Shared {
    caches: Vec<Watched>,
    zfs: OnceLock<Zfs>,
    report: RwLock<Arc<Report>>,
    troubles: RwLock<Arc<Vec<Trouble>>>,
    metrics: Arc<Metrics>,
}

impl Watch {
    /// Watches `caches`, asking ZFS each `interval`.
    pub fn start(
        caches: Vec<Watched>,
        interval: Duration,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            caches,
            zfs: OnceLock::new(),
            report: RwLock::default(),
            troubles: RwLock::default(),
            metrics,
        });
        // Before anything is served: a pool that is suspended at the start hangs nobody either.
        shared.feel();
        let look = every("zfs-watch", interval, Arc::clone(&shared), Shared::look)?;
        let feel = every("pulse", PULSE_EVERY, Arc::clone(&shared), Shared::feel)?;
        Ok(Self { shared, _ends: [look, feel] })
    }

    /// The last look at ZFS.
    pub fn report(&self) -> Arc<Report> {
        self.shared.report()
    }

    /// What is wrong now.
    pub fn troubles(&self) -> Arc<Vec<Trouble>> {
        Arc::clone(&self.shared.troubles.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the pool that a cache lies on, because something in it could not be read, and closes the
    /// cache where the pool gives nothing any more. Blocks. What ZFS says of the pool, for a log; empty
    /// where the cache lies on none.
    pub fn look_at_pool_of(&self, cache: &str) -> String {
        self.shared.feel();
        if !self.report().caches.contains_key(cache) {
            // Shortly after the start nobody has looked yet.
            self.shared.look();
        }
        let report = self.report();
        let Some(pool) = report.caches.get(cache).map(|dataset| dataset.pool()) else {
            return String::new();
        };
        match self.shared.zfs().and_then(|zfs| zfs.report(&pool)) {
            Ok(report) => report,
            Err(error) => error.to_string(),
        }
    }
}

/// Runs `work` at once and then each `interval`, on a thread of its own, until the sender is dropped.
fn every(
    name: &str,
    interval: Duration,
    shared: Arc<Shared>,
    work: fn(&Shared),
) -> io::Result<Sender<()>> {
    let (end, ended) = mpsc::channel();
    thread::Builder::new().name(name.into()).spawn(move || {
        loop {
            work(&shared);
            if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    })?;
    Ok(end)
}

impl Shared {
    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks ZFS, if a cache lies on it.
    fn look(&self) {
        let lying: Vec<_> = self
            .caches
            .iter()
            .map(|watched| Lying {
                cache: watched.cache.clone(),
                directory: watched.directory.clone(),
                dataset: watched.dataset.clone(),
            })
            .collect();
        let caches = datasets_of(&lying);
        if caches.is_empty() {
            return;
        }
        let report = match self.zfs() {
            Ok(zfs) => Report::make(zfs, caches),
            Err(error) => Report { caches, failure: Some(error.to_string()), ..Report::default() },
        };
        let before = self.report();
        match (&before.failure, &report.failure) {
            (before, Some(now)) if before.as_ref() != Some(now) => tracing::error!("{now}"),
            (Some(_), None) => tracing::info!("ZFS answers again"),
            _ => {}
        }
        report.show(&self.metrics.zfs, Timestamp::now().as_second());
        *self.report.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(report);
    }

    fn zfs(&self) -> Result<&Zfs, crate::zfs::ZfsError> {
        match self.zfs.get() {
            Some(zfs) => Ok(zfs),
            None => Ok(self.zfs.get_or_init({
                let zfs = Zfs::find()?;
                || zfs
            })),
        }
    }

    /// Looks at the probes and at the kernel's word, and closes and opens caches by them.
    fn feel(&self) {
        let report = self.report();
        let mut pools: BTreeMap<PoolName, Option<Health>> = BTreeMap::new();
        let mut troubles = Vec::new();
        for watched in &self.caches {
            let dataset = report.caches.get(&watched.cache).or(watched.dataset.as_ref());
            let kernel = dataset.and_then(|dataset| {
                let pool = dataset.pool();
                *pools.entry(pool.clone()).or_insert_with(|| kernel_state(&pool).ok().flatten())
            });
            let pulse = match watched.probe.as_ref().map(Probe::pulse) {
                // A few bytes go in where a NAR does not.
                Some(Pulse::Well) if watched.no_room.as_ref().is_some_and(|room| room.is_so()) => {
                    Some(Pulse::Full)
                }
                pulse => pulse,
            };
            (watched.close)(must_close(pulse.as_ref(), kernel));
            let found = judge(&watched.cache, pulse.as_ref(), kernel, &report);
            let well = found.iter().all(|trouble| trouble.severity < Severity::Unavailable);
            self.metrics.zfs.cache(&watched.cache, well);
            troubles.extend(found);
        }
        self.tell(&troubles);
        *self.troubles.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(troubles);
    }

    /// Logs what has become wrong, and what is right again; not what goes on.
    fn tell(&self, now: &[Trouble]) {
        // How long it has been so is not news.
        let key = |trouble: &Trouble| (trouble.cache.clone(), without_digits(&trouble.what));
        let before = Arc::clone(&self.troubles.read().unwrap_or_else(PoisonError::into_inner));
        for trouble in now.iter().filter(|now| !before.iter().any(|old| key(old) == key(now))) {
            tracing::error!("{trouble}");
        }
        for trouble in before.iter().filter(|old| !now.iter().any(|new| key(new) == key(old))) {
            tracing::info!("over: {trouble}");
        }
    }
}

/// Why nobody may go near the disks of a cache; `None` where they may.
fn must_close(pulse: Option<&Pulse>, kernel: Option<Health>) -> Option<String> {
    match (pulse, kernel) {
        (Some(Pulse::Stuck(waited)), _) => {
            Some(format!("its disks have not answered for {} s", waited.as_secs()))
        }
        (_, Some(health)) if !health.answers() => Some(format!("its pool is {}", health.as_str())),
        _ => None,
    }
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_that_do_not_answer_close_a_cache() {
        for pulse in [Pulse::Well, Pulse::Full, Pulse::ReadOnly, Pulse::Failing("EIO".into())] {
            assert_eq!(must_close(Some(&pulse), Some(Health::Degraded)), None, "{pulse:?}");
        }
        assert!(must_close(Some(&Pulse::Stuck(Duration::from_secs(3))), None).is_some());
        assert!(must_close(None, Some(Health::Suspended)).unwrap().contains("SUSPENDED"));
    }

    #[test]
    fn what_goes_on_is_the_same_trouble() {
        assert_eq!(without_digits("for 3 s"), without_digits("for 17 s"));
    }
}
