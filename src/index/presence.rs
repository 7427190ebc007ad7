//! Which paths a source has, in memory, and whether that memory can be believed.
//!
//! A source's truth is its files, or Nix's database. A memory of it is *exact* as long as nothing
//! has changed the truth since the scan that made it. While it is not, the truth itself is asked,
//! and a new scan is due. So a miss costs no I/O where nothing changes, and a path that came or
//! went a moment ago is answered rightly all the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::path_set::PathSet;
use crate::nix::hash::Sha256;
use crate::nix::store_path::StorePathHash;

/// Scans take at most one part in this many of the time, however often the truth changes.
const SCAN_SHARE: u32 = 10;
/// Between two scans there is at least this much.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// The memory of one source.
#[derive(Default)]
pub struct Presence {
    known: RwLock<Arc<Known>>,
    /// Counts the changes of the truth that were noticed; starts at 1.
    truth: AtomicU64,
    /// The count that `known` is of; 0 before the first scan.
    exact_at: AtomicU64,
    scanning: AtomicBool,
    next_scan: Mutex<Option<Instant>>,
}

/// What a scan found.
#[derive(Default, Debug)]
pub struct Known {
    /// Every path.
    pub paths: PathSet,
    /// Which path has the NAR of a hash, where the scan could tell; one where several have it.
    pub nars: HashMap<Sha256, StorePathHash>,
}

impl Presence {
    /// Whether the source has the path; `None` where the truth must be asked.
    pub fn contains(&self, hash: StorePathHash) -> Option<bool> {
        self.is_exact().then(|| self.known().paths.contains(hash))
    }

    /// Which path had the NAR of this hash at the last scan.
    pub fn path_of_nar(&self, nar: Sha256) -> Option<StorePathHash> {
        self.known().nars.get(&nar).copied()
    }

    /// How many paths there were at the last scan.
    pub fn len(&self) -> usize {
        self.known().paths.len()
    }

    /// Whether there were none at the last scan.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing has changed since the last scan.
    pub fn is_exact(&self) -> bool {
        self.exact_at.load(Ordering::Acquire) == self.truth.load(Ordering::Acquire)
            && self.exact_at.load(Ordering::Acquire) > 0
    }

    /// Whether there ever was a scan; before the first one nothing at all is known.
    pub fn was_scanned(&self) -> bool {
        self.exact_at.load(Ordering::Acquire) > 0
    }

    /// Changes whenever the truth was noticed to have changed.
    pub fn version(&self) -> u64 {
        self.truth.load(Ordering::Acquire)
    }

    /// Notes that the truth is not what it was.
    pub fn truth_changed(&self) {
        self.truth.fetch_add(1, Ordering::AcqRel);
    }

    /// A leave to scan, if a scan is due and nobody else is at it.
    pub fn begin_scan(&self) -> Option<Scan<'_>> {
        if self.is_exact() || self.next_scan().is_some_and(|due| Instant::now() < due) {
            return None;
        }
        if self.scanning.swap(true, Ordering::AcqRel) {
            return None;
        }
        let truth = self.truth.load(Ordering::Acquire);
        Some(Scan { presence: self, truth, began: Instant::now() })
    }

    /// What the last scan found.
    pub fn known(&self) -> Arc<Known> {
        // A poisoned lock holds a whole value: it is only ever swapped.
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn next_scan(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.next_scan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A scan under way. Dropped unfinished, another may begin.
pub struct Scan<'a> {
    presence: &'a Presence,
    truth: u64,
    began: Instant,
}

impl Scan<'_> {
    /// Remembers what was found, exact if the truth has not changed since the scan began.
    pub fn finish(self, known: Known) {
        let mut slot = self.presence.known.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Arc::new(known);
        self.presence.exact_at.store(self.truth, Ordering::Release);
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        let pause = (self.began.elapsed() * SCAN_SHARE).max(MIN_PAUSE);
        *self.presence.next_scan() = Some(Instant::now() + pause);
        self.presence.scanning.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u8) -> StorePathHash {
        StorePathHash::from_bytes([number; 20])
    }

    fn known(numbers: &[u8]) -> Known {
        let paths: Vec<_> = numbers.iter().map(|number| hash(*number)).collect();
        Known { paths: paths.into(), ..Known::default() }
    }

    #[test]
    fn nothing_is_believed_before_the_first_scan() {
        let presence = Presence::default();
        assert_eq!(presence.contains(hash(1)), None);
    }

    #[test]
    fn a_scan_is_believed_until_the_truth_changes() {
        let presence = Presence::default();
        presence.truth_changed();
        presence.begin_scan().unwrap().finish(known(&[1]));
        assert_eq!(
            (presence.contains(hash(1)), presence.contains(hash(2))),
            (Some(true), Some(false))
        );
        presence.truth_changed();
        assert_eq!(presence.contains(hash(2)), None);
    }

    #[test]
    fn a_change_during_a_scan_leaves_it_doubted() {
        let presence = Presence::default();
        presence.truth_changed();
        let scan = presence.begin_scan().unwrap();
        presence.truth_changed();
        scan.finish(known(&[1]));
        assert_eq!(presence.contains(hash(1)), None);
    }

    #[test]
    fn only_one_scans_at_a_time_and_a_failed_scan_leaves_room_for_the_next() {
        let presence = Presence::default();
        presence.truth_changed();
        let scan = presence.begin_scan().unwrap();
        assert!(presence.begin_scan().is_none());
        drop(scan);
        assert!(presence.begin_scan().is_none(), "the pause holds");
        *presence.next_scan() = None;
        assert!(presence.begin_scan().is_some());
    }
}
