//! The quota of a cache that the configuration sets, where the file system sets none.
//!
//! Bytes are reserved before they are written, so that the sum is never above the quota, however many
//! write at once; what is not kept is given back. What is there is counted by walking the bank: before the
//! first push, and again when an upload is refused, because others may have made room.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bank::{Bank, BankError};

/// How much of a cache is used, in bytes.
#[derive(Default)]
pub struct Quota {
    /// Nothing is counted without one.
    limit: Option<u64>,
    counts: Mutex<Counts>,
    /// Held for as long as it is counted anew.
    counting: Mutex<()>,
    /// Whether it was counted at all.
    is_counted: AtomicBool,
}

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    kept: u64,
    reserved: u64,
    /// What was kept since the last count began.
    added: u64,
}

/// Bytes of a quota that are not kept yet. Dropped, they are free again.
pub struct Reservation {
    quota: Arc<Quota>,
    bytes: AtomicU64,
}

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
#[error("the cache is full: {used} of {limit} bytes are used, and {wanted} more do not fit")]
struct Full {
    used: u64,
    limit: u64,
    wanted: u64,
}

impl Quota {
    /// A quota of `limit` bytes for what is in a bank. Nothing is counted yet: the bank may be away.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Counts what is in the bank, if it was not counted yet.
    pub(super) fn count_once(&self, bank: &Bank) -> Result<(), BankError> {
        if self.is_counted.load(Ordering::Acquire) { Ok(()) } else { self.count(bank) }
    }

    /// Counts anew what is in the bank.
    ///
    /// What others write meanwhile may be counted twice until the next count, and is never missed.
    pub(super) fn count(&self, bank: &Bank) -> Result<(), BankError> {
        if self.limit.is_none() {
            return Ok(());
        }
        self.count_by(|| bank.bytes_used())
    }

    fn count_by(&self, walk: impl FnOnce() -> Result<u64, BankError>) -> Result<(), BankError> {
        let _counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        self.counts().added = 0;
        let found = walk()?;
        let mut counts = self.counts();
        counts.kept = found.saturating_add(counts.added);
        self.is_counted.store(true, Ordering::Release);
        Ok(())
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a reservation of nothing.
    pub(super) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { quota: Arc::clone(self), bytes: AtomicU64::new(0) }
    }

    /// Notes that bytes that were kept are gone.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut counts = self.counts();
        counts.kept = counts.kept.saturating_sub(bytes);
    }
}

impl Reservation {
    /// Takes `bytes` more, or refuses.
    pub(super) fn grow(&self, bytes: u64) -> io::Result<()> {
        let Some(limit) = self.quota.limit else { return Ok(()) };
        let mut counts = self.quota.counts();
        let used = counts.kept.saturating_add(counts.reserved);
        if used.checked_add(bytes).is_none_or(|sum| sum > limit) {
            let full = Full { used, limit, wanted: bytes };
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, full));
        }
        counts.reserved += bytes;
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Keeps what was reserved.
    pub(super) fn keep(self) {
        let bytes = self.bytes.swap(0, Ordering::AcqRel);
        let mut counts = self.quota.counts();
        counts.reserved = counts.reserved.saturating_sub(bytes);
        counts.kept = counts.kept.saturating_add(bytes);
        counts.added = counts.added.saturating_add(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Acquire);
        let mut counts = self.quota.counts();
        counts.reserved = counts.reserved.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limit: u64) -> Arc<Quota> {
        Arc::new(Quota::new(Some(limit)))
    }

    fn used(quota: &Quota) -> u64 {
        let counts = quota.counts();
        counts.kept + counts.reserved
    }

    #[test]
    fn what_is_not_kept_is_free_again_to_the_byte() {
        let quota = quota(100);
        let first = quota.reserve();
        first.grow(60).unwrap();
        let error = quota.reserve().grow(41).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert!(error.to_string().contains("60 of 100"), "{error}");
        drop(first);
        let all = quota.reserve();
        all.grow(100).unwrap();
        all.keep();
        assert!(quota.reserve().grow(1).is_err());
        quota.give_back(1);
        quota.reserve().grow(1).unwrap();
        assert_eq!(used(&quota), 99);
    }

    #[test]
    fn many_at_the_edge_never_take_more_than_there_is() {
        let quota = quota(1000);
        let kept: u64 = std::thread::scope(|scope| {
            let worker = || {
                let reservation = quota.reserve();
                let got = (0..100).filter(|_| reservation.grow(7).is_ok()).count() as u64 * 7;
                assert!(used(&quota) <= 1000);
                reservation.keep();
                got
            };
            let workers: Vec<_> = (0..32).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((kept, quota.counts().reserved), (994, 0));
    }

    #[test]
    fn what_is_written_while_it_is_counted_is_not_missed() {
        let quota = quota(1000);
        let (before, meanwhile) = (quota.reserve(), quota.reserve());
        before.grow(100).unwrap();
        let counted = quota.count_by(|| {
            // The walk has passed by when these get their names.
            before.keep();
            meanwhile.grow(200).unwrap();
            Ok(0)
        });
        counted.unwrap();
        assert_eq!(used(&quota), 300);
        drop(meanwhile);
        assert_eq!(used(&quota), 100);
    }
}
