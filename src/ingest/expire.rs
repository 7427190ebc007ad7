//! Letting go of what nobody came back for: NARs without a narinfo, and unfinished uploads.
//!
//! Ages are told by the wall clock, since they outlive the process, and a wall clock jumps. When it
//! has moved by more than [`TOLERATED`] from what really passed, nothing is let go of for as long as
//! things may wait: a clock that ran wrong for a while must not have made anything old.

use std::time::{Duration, Instant, SystemTime};

use super::publish::Ingest;
use super::refusal::PushError;
use crate::bank::publish::pending::WaitingOf;

/// By how much the wall clock may differ from the time that passed.
const TOLERATED: Duration = Duration::from_secs(3600);

/// Decides whether ages can be believed.
#[derive(Debug)]
pub struct Expiry {
    age: Duration,
    last: Option<(Instant, SystemTime)>,
    suspended_until: Option<Instant>,
}

impl Expiry {
    /// Things may wait for `age`.
    pub const fn new(age: Duration) -> Self {
        Self { age, last: None, suspended_until: None }
    }

    /// Whether ages can be believed now. Called at every tick.
    pub fn may_judge(&mut self, now: Instant, wall: SystemTime) -> bool {
        if let Some((then, wall_then)) = self.last.replace((now, wall)) {
            let passed = now.saturating_duration_since(then);
            let jump = match wall.duration_since(wall_then) {
                Ok(wall_passed) => wall_passed.abs_diff(passed),
                Err(error) => error.duration() + passed,
            };
            if jump > TOLERATED {
                tracing::warn!(?jump, "the clock jumped: nothing is let go of for {:?}", self.age);
                self.suspended_until = Some(now + self.age);
            }
        }
        self.suspended_until.is_none_or(|until| now >= until)
    }
}

impl Ingest {
    /// Lets go of what has waited for longer than `expiry` allows. Blocks. Says how many files.
    pub fn expire(&self, expiry: &mut Expiry) -> Result<u64, PushError> {
        self.pushes.waiting(self.fresh().len());
        let wall = SystemTime::now();
        if !expiry.may_judge(Instant::now(), wall) {
            return Ok(0);
        }
        let mut removed = 0;
        for waiting in self.bank.waiting_for_longer(expiry.age, wall)? {
            // Under the lock it is looked at again: whoever held it may have gone on with it.
            let (_writing, _waiting) = match &waiting.of {
                WaitingOf::Upload(id) => match self.uploads.write(id) {
                    Some(writing) => (Some(writing), None),
                    None => continue,
                },
                WaitingOf::Nar(name) => {
                    let lock = self.lock_waiting(*name);
                    if self.fresh().get(name).is_some_and(|nar| nar.asked.elapsed() < expiry.age) {
                        continue;
                    }
                    self.fresh().remove(name);
                    (None, Some(lock))
                }
            };
            removed += self.bank.remove_waiting(&waiting, expiry.age, wall)?;
        }
        if removed > 0 {
            self.quota.count(&self.bank)?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_clock_that_runs_is_believed_over_a_change_of_summer_time_that_is_none_of_utc() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut expiry = Expiry::new(DAY);
        for hour in 0..100 {
            assert!(expiry.may_judge(start + hour * HOUR, wall + hour * HOUR), "{hour}");
        }
    }

    #[test]
    fn a_clock_that_jumps_suspends_for_as_long_as_things_may_wait() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let jumps = [wall - DAY, wall + 365 * DAY, SystemTime::UNIX_EPOCH];
        for jumped in jumps {
            let mut expiry = Expiry::new(DAY);
            assert!(expiry.may_judge(start, wall));
            assert!(!expiry.may_judge(start + HOUR, jumped), "{jumped:?}");
            assert!(!expiry.may_judge(start + 2 * HOUR, jumped + HOUR));
            assert!(expiry.may_judge(start + 2 * HOUR + DAY, jumped + HOUR + DAY));
        }
    }
}
