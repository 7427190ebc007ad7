//! A circuit breaker: a cache that does not answer is not asked until it was seen to answer again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many failures, one after the other, open the circuit.
const FAILURES: u32 = 3;
/// How long after that it is looked whether the cache answers again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Each look in vain doubles the pause, to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whether a cache elsewhere may be asked.
#[derive(Debug, Default)]
pub struct Circuit {
    is_open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    pause: Duration,
    look_at: Option<Instant>,
}

impl Circuit {
    /// Whether requests go through: a lock-free look.
    pub fn is_closed(&self) -> bool {
        !self.is_open.load(Ordering::Acquire)
    }

    /// Notes that the cache answered. Says whether it did not before.
    pub fn answered(&self) -> bool {
        let mut state = self.state();
        *state = State::default();
        self.is_open.swap(false, Ordering::AcqRel)
    }

    /// Notes that it did not answer. Says whether that opened the circuit.
    pub fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return false;
        }
        // Of many requests that were under way together only the first counts.
        if state.look_at.is_none_or(|at| now >= at) {
            let pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            state.pause = pause;
            state.look_at = Some(now + pause);
        }
        !self.is_open.swap(true, Ordering::AcqRel)
    }

    /// Opens it at once. Says whether it was closed.
    pub fn open(&self, now: Instant) -> bool {
        self.state().failures = FAILURES;
        self.failed(now)
    }

    /// Whether the circuit is open, and it is time to look.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.is_closed() && self.state().look_at.is_none_or(|at| now >= at)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every write of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        assert!(!circuit.failed(now) && !circuit.failed(now));
        assert!(!circuit.answered());
        assert!(!circuit.failed(now) && !circuit.failed(now) && circuit.is_closed());
        assert!(circuit.failed(now), "the third opens it");
        assert!(!circuit.failed(now), "and it is open already");
        assert!(!circuit.is_closed());
        assert!(circuit.answered());
        assert!(circuit.is_closed());
    }

    #[test]
    fn it_can_be_opened_at_once() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        assert!(circuit.open(now) && !circuit.open(now) && !circuit.is_closed());
    }

    #[test]
    fn it_is_looked_ever_later_whether_the_cache_answers() {
        let (circuit, mut now) = (Circuit::default(), Instant::now());
        for _ in 0..10 {
            circuit.failed(now);
        }
        assert!(!circuit.is_due(now));
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            let (before, due) = (Duration::from_millis(1), Duration::from_secs(pause));
            assert!(!circuit.is_due(now + due - before), "{pause}");
            now += due;
            assert!(circuit.is_due(now), "{pause}");
            circuit.failed(now);
        }
    }
}
