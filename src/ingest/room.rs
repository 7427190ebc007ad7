//! Whether a push was refused for want of room a moment ago, for those who look after the disks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a refusal is worth mentioning, if nothing is pushed any more: until somebody has had the
/// time to look.
const WORTH_MENTIONING: Duration = Duration::from_secs(3600);

/// For how long after a refusal nothing is fetched that nobody has pushed.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// The last refusal for want of room, if nothing was taken since.
#[derive(Debug, Default)]
pub struct NoRoom(Mutex<Option<Instant>>);

impl NoRoom {
    /// A push was refused.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A push was taken.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether pushes are refused for want of room.
    pub fn is_so(&self) -> bool {
        self.was_within(WORTH_MENTIONING)
    }

    /// Whether one was a moment ago.
    pub(super) fn was_just_now(&self) -> bool {
        self.was_within(LEFT_ALONE)
    }

    fn was_within(&self, time: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_so_from_a_refusal_to_the_next_push_that_is_taken() {
        let room = NoRoom::default();
        assert!(!room.is_so());
        room.note();
        assert!(room.is_so());
        room.clear();
        assert!(!room.is_so());
    }
}
