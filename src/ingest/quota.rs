//! The quota of a cache that the configuration sets, where the file system sets none.
//!
//! Bytes are reserved before they are written, so that the sum is never above the quota, however many
//! write at once; what is not kept is given back. What is there is counted by walking the bank: at the
//! start, and again when an upload is refused, because others may have made room.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bank::{Bank, BankError};

/// How much of a cache is used, in bytes.
pub struct Quota {
    /// Nothing is counted without one.
    limit: Option<u64>,
    /// What is kept, and what is reserved.
    used: AtomicU64,
    /// What of `used` is only reserved.
    reserved: AtomicU64,
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
    /// A quota of `limit` bytes for what is in `bank`.
    pub fn new(limit: Option<u64>, bank: &Bank) -> Result<Self, BankError> {
        let quota = Self { limit, used: AtomicU64::new(0), reserved: AtomicU64::new(0) };
        quota.count(bank)?;
        Ok(quota)
    }

    /// Counts anew what is in the bank.
    ///
    /// What others write meanwhile may be counted twice until the next count, and is never missed.
    pub(super) fn count(&self, bank: &Bank) -> Result<(), BankError> {
        if self.limit.is_some() {
            let reserved = self.reserved.load(Ordering::Acquire);
            let kept = bank.bytes_used()?;
            self.used.store(kept.saturating_add(reserved), Ordering::Release);
        }
        Ok(())
    }

    /// Begins a reservation of nothing.
    pub(super) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { quota: Arc::clone(self), bytes: AtomicU64::new(0) }
    }

    /// Notes that bytes that were kept are gone.
    pub(super) fn give_back(&self, bytes: u64) {
        if self.limit.is_some() {
            let less = |used: u64| Some(used.saturating_sub(bytes));
            // The closure always gives a value.
            let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }
}

impl Reservation {
    /// Takes `bytes` more, or refuses.
    pub(super) fn grow(&self, bytes: u64) -> io::Result<()> {
        let Some(limit) = self.quota.limit else { return Ok(()) };
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let used = self.quota.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        match used {
            Ok(_) => {
                self.quota.reserved.fetch_add(bytes, Ordering::AcqRel);
                self.bytes.fetch_add(bytes, Ordering::AcqRel);
                Ok(())
            }
            Err(used) => {
                let full = Full { used, limit, wanted: bytes };
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, full))
            }
        }
    }

    /// Keeps what was reserved.
    pub(super) fn keep(self) {
        let bytes = self.bytes.swap(0, Ordering::AcqRel);
        self.quota.reserved.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Acquire);
        self.quota.reserved.fetch_sub(bytes, Ordering::AcqRel);
        self.quota.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limit: u64) -> Arc<Quota> {
        let (used, reserved) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Quota { limit: Some(limit), used, reserved })
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
        assert_eq!(quota.used.load(Ordering::Relaxed), 99);
    }

    #[test]
    fn many_at_the_edge_never_take_more_than_there_is() {
        let quota = quota(1000);
        let kept: u64 = std::thread::scope(|scope| {
            let worker = || {
                let reservation = quota.reserve();
                let got = (0..100).filter(|_| reservation.grow(7).is_ok()).count() as u64 * 7;
                assert!(quota.used.load(Ordering::Relaxed) <= 1000);
                reservation.keep();
                got
            };
            let workers: Vec<_> = (0..32).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((kept, quota.reserved.load(Ordering::Relaxed)), (994, 0));
    }
}
