//! When and how often the paths of a cache were asked for: kept in memory, and written to the state database in
//! batches, so that no read waits for a disk.
//!
//! Of what was asked for since the last batch memory knows, of what was before the database. A process that is
//! killed loses what came since the last batch, a minute at most: a path counts as asked for a minute earlier.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nix::store_path::StorePathHash;

const SHARDS: usize = 64;
/// In so many batches all that is remembered is written, so that the writing takes little memory.
pub const BATCHES: usize = 8;
/// Paths that are remembered in a shard between two batches; all shards together a million.
const MAX_IN_A_SHARD: usize = 1 << 14;

/// When and how often a path was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// The last time, in seconds since 1970.
    pub last: i64,
    /// How often.
    pub count: u32,
}

impl Use {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { last: self.last.max(other.last), count: self.count.saturating_add(other.count) }
    }
}

/// What was asked for since the last batch was taken.
pub struct Uses {
    shards: Vec<Mutex<HashMap<StorePathHash, Use>>>,
    /// By batch: whether something was asked for that is not remembered.
    has_missed: [AtomicBool; BATCHES],
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            has_missed: Default::default(),
        }
    }
}

impl Uses {
    /// Notes that a path was asked for at `now`, in seconds since 1970. Takes well below a microsecond.
    pub fn note(&self, hash: StorePathHash, now: i64) {
        let mut shard = self.shard(hash);
        if shard.len() >= MAX_IN_A_SHARD && !shard.contains_key(&hash) {
            self.has_missed[number(hash) % BATCHES].store(true, Ordering::Release);
            return;
        }
        let kept = shard.entry(hash).or_default();
        *kept = kept.and(Use { last: now, count: 1 });
    }

    /// What is known of a path since the last batch.
    pub fn of(&self, hash: StorePathHash) -> Option<Use> {
        self.shard(hash).get(&hash).copied()
    }

    /// Whether more was asked for since the last batch than is remembered, so that nothing may be taken for unused.
    pub fn has_missed(&self) -> bool {
        self.has_missed.iter().any(|missed| missed.load(Ordering::Acquire))
    }

    /// What is remembered in a batch, of [`BATCHES`], for the database. It stays here, too, until [`Self::forget`]
    /// is told that it is kept there.
    pub fn batch(&self, batch: usize) -> Vec<(StorePathHash, Use)> {
        let shards = self.shards.iter().skip(batch).step_by(BATCHES);
        let mut batch = Vec::new();
        for shard in shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            batch.extend(shard.iter().map(|(hash, used)| (*hash, *used)));
        }
        batch
    }

    /// Lets go of a batch, but for what was asked for again since it was taken, of which only that is left.
    pub fn forget(&self, batch: usize, kept: &[(StorePathHash, Use)]) {
        for (hash, kept) in kept {
            let mut shard = self.shard(*hash);
            if let Some(now) = shard.get_mut(hash) {
                now.count = now.count.saturating_sub(kept.count);
                if now.count == 0 {
                    shard.remove(hash);
                }
            }
        }
        self.has_missed[batch].store(false, Ordering::Release);
    }

    fn shard(&self, hash: StorePathHash) -> MutexGuard<'_, HashMap<StorePathHash, Use>> {
        self.shards[number(hash)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the shard that a path is in.
fn number(hash: StorePathHash) -> usize {
    usize::from(hash.as_bytes()[0]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> StorePathHash {
        StorePathHash::of_prefix(number)
    }

    #[test]
    fn what_is_asked_for_is_counted_until_it_is_kept_elsewhere() {
        let uses = Uses::default();
        for now in [5, 7, 6] {
            uses.note(hash(1), now);
        }
        assert_eq!(uses.of(hash(1)), Some(Use { last: 7, count: 3 }));
        assert_eq!(uses.of(hash(2)), None);
        // All of them in one batch, and nothing in the others.
        assert_eq!(uses.batch(1), []);
        let batch = uses.batch(0);
        uses.note(hash(1), 9);
        uses.note(hash(2), 9);
        uses.forget(0, &batch);
        assert_eq!(uses.of(hash(1)), Some(Use { last: 9, count: 1 }), "what came in between stays");
        let batch = uses.batch(0);
        uses.forget(0, &batch);
        assert_eq!(uses.batch(0), []);
    }

    #[test]
    fn what_is_too_much_to_remember_is_told() {
        let uses = Uses::default();
        // All in one shard.
        let one_shard = |number: u32| hash(number & 0x00ff_ffff);
        for number in 0..=u32::try_from(MAX_IN_A_SHARD).unwrap() {
            assert!(!uses.has_missed());
            uses.note(one_shard(number), 1);
        }
        assert!(uses.has_missed());
        uses.note(one_shard(0), 2);
        assert_eq!(uses.of(one_shard(0)), Some(Use { last: 2, count: 2 }));
        uses.forget(1, &uses.batch(1));
        assert!(uses.has_missed());
        uses.forget(0, &uses.batch(0));
        assert!(!uses.has_missed());
    }
}
