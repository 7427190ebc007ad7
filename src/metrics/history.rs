//! What came and went over the last hours, minute by minute, in memory: for the page at `/`, which must not need a
//! Prometheus. It begins anew with the process.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often totals are to be noted.
pub const EVERY: Duration = Duration::from_secs(60);
/// How many notes are kept: twelve hours of them, some 50 kB.
const KEPT: usize = 12 * 60;

/// What was counted; of the whole time of the process, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that were answered.
    pub requests: u64,
    /// narinfos that a source had.
    pub hits: u64,
    /// narinfos that none had.
    pub misses: u64,
    /// Bytes of bodies that were sent.
    pub sent_bytes: u64,
    /// Paths that were pushed and published.
    pub pushed_paths: u64,
    /// Bytes of their NARs.
    pub pushed_bytes: u64,
}

impl Traffic {
    /// What came after `earlier`. Of counters that were read one after another each is its own.
    fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            pushed_paths: self.pushed_paths.saturating_sub(earlier.pushed_paths),
            pushed_bytes: self.pushed_bytes.saturating_sub(earlier.pushed_bytes),
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.misses += other.misses;
        self.sent_bytes += other.sent_bytes;
        self.pushed_paths += other.pushed_paths;
        self.pushed_bytes += other.pushed_bytes;
    }
}

/// What was counted in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// When it ended, in seconds since 1970.
    pub ended: i64,
    /// What was counted in it.
    pub traffic: Traffic,
}

/// The last hours.
#[derive(Debug, Default)]
pub struct History(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    totals: Traffic,
    intervals: VecDeque<Interval>,
}

impl History {
    /// Notes what all has been counted by `now`, in seconds since 1970.
    pub fn note(&self, now: i64, totals: Traffic) {
        let mut inner = self.lock();
        let traffic = totals.since(inner.totals);
        inner.totals = totals;
        inner.intervals.push_back(Interval { ended: now, traffic });
        if inner.intervals.len() > KEPT {
            inner.intervals.pop_front();
        }
    }

    /// All that is known, the oldest first; the last is what came since the last note.
    pub fn until(&self, now: i64, totals: Traffic) -> Vec<Interval> {
        let inner = self.lock();
        let current = Interval { ended: now, traffic: totals.since(inner.totals) };
        inner.intervals.iter().copied().chain([current]).collect()
    }

    /// A poisoned lock holds what was noted until then.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(requests: u64) -> Traffic {
        Traffic { requests, ..Traffic::default() }
    }

    #[test]
    fn each_interval_has_what_came_in_it_and_the_last_what_came_since() {
        let history = History::default();
        history.note(60, requests(5));
        history.note(120, requests(7));
        let known = history.until(130, requests(17));
        let known: Vec<_> = known.iter().map(|one| (one.ended, one.traffic.requests)).collect();
        assert_eq!(known, [(60, 5), (120, 2), (130, 10)]);
    }

    #[test]
    fn no_more_than_the_last_hours_is_kept() {
        let history = History::default();
        for minute in 0..2 * KEPT as u64 {
            history.note(minute.cast_signed(), requests(minute));
        }
        let known = history.until(0, requests(0));
        assert_eq!(known.len(), KEPT + 1);
        assert_eq!(known[0].ended, KEPT as i64);
    }
}
