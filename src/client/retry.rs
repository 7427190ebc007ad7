//! When to try again, and when to stop trying.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The first wait is at most this long.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No wait of our own choice is longer; a server's `Retry-After` may be.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Waits that double, each a random part of it (full jitter), so that many clients of a server that
/// comes back do not come back together.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `random` is any number; `at_least` is what the server asked
    /// for.
    pub fn next(&mut self, random: u32, at_least: Option<Duration>) -> Duration {
        let ceiling =
            FIRST_WAIT.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let part = f64::from(random) / f64::from(u32::MAX);
        ceiling.min(LONGEST_WAIT).mul_f64(part).max(at_least.unwrap_or(Duration::ZERO))
    }

    /// It went well: the next failure is a first one.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number for [`Backoff::next`]; where the system has none, the longest wait will do.
pub fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// A wish to stop, that everything which waits listens to.
#[derive(Debug, Default)]
pub struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Wakes everything that waits, and lets nothing wait any more.
    pub fn stop(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Whether it is time to stop.
    pub fn is_stopped(&self) -> bool {
        *self.lock()
    }

    /// Waits for `duration`, or until it is time to stop, and says whether it is.
    pub fn wait(&self, duration: Duration) -> bool {
        let guard = self.lock();
        let waited = self.changed.wait_timeout_while(guard, duration, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to go on after failures.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Counted from the first failure in a row; `None` is for ever.
    pub retry_for: Option<Duration>,
}

impl Patience {
    /// Whether it is worth to wait for `wait` more, `since` being when the failures began.
    pub fn allows(&self, since: Instant, wait: Duration) -> bool {
        self.retry_for.is_none_or(|limit| since.elapsed() + wait <= limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_ceiling_or_shorter_than_what_the_server_asked(
            randoms in prop::collection::vec(any::<u32>(), 1..80),
            asked in prop::option::of(0u64..1000),
        ) {
            let asked = asked.map(Duration::from_secs);
            let mut backoff = Backoff::default();
            for (failure, random) in randoms.into_iter().enumerate() {
                let wait = backoff.next(random, asked);
                let doubled = f64::from(1u32 << failure.min(20));
                let ceiling = Duration::from_secs_f64(doubled.min(300.0));
                prop_assert!(wait <= ceiling.max(asked.unwrap_or_default()));
                prop_assert!(wait >= asked.unwrap_or_default());
            }
        }
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            waits.push(backoff.next(u32::MAX, None).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX, None), FIRST_WAIT);
    }

    #[test]
    fn a_stop_ends_a_wait_that_has_begun_and_those_to_come() {
        let stop = Arc::new(Stop::default());
        assert!(!stop.wait(Duration::ZERO));
        let waiting = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || stop.wait(Duration::from_secs(600)))
        };
        stop.stop();
        assert!(waiting.join().unwrap());
        assert!(stop.wait(Duration::from_secs(600)) && stop.is_stopped());
    }

    #[test]
    fn patience_ends_where_the_wait_would_pass_its_limit() {
        let patience = Patience { retry_for: Some(Duration::from_secs(60)) };
        assert!(patience.allows(Instant::now(), Duration::from_secs(30)));
        assert!(!patience.allows(Instant::now(), Duration::from_secs(61)));
        let forever = Patience { retry_for: None };
        assert!(forever.allows(Instant::now(), Duration::from_secs(1 << 30)));
    }
}
