//! Whether read errors are of single files or of everything.
//!
//! One file that cannot be read is answered as absent, which clients remember for an hour. When many
//! fail within moments it is more likely that the whole pool does, and then nothing is known of any path. Where
//! somebody watches the pool ([`super::vital`]) he knows better, and nobody asks here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many files that fail within [`WINDOW`] are a storm.
const STORM: usize = 16;
/// See [`STORM`].
const WINDOW: Duration = Duration::from_secs(10);

/// The files that failed last.
#[derive(Default)]
pub(super) struct Storm(Mutex<VecDeque<(Instant, String)>>);

impl Storm {
    /// Notes that a file failed, and says whether too many did.
    pub(super) fn strike(&self, file: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|(at, name)| now.saturating_duration_since(*at) < WINDOW && name != file);
        if last.len() >= STORM {
            last.pop_front();
        }
        last.push_back((now, file.to_owned()));
        last.len() >= STORM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_within_moments_are_a_storm_which_passes() {
        let (storm, start) = (Storm::default(), Instant::now());
        let strike = |number: usize, now| storm.strike(&number.to_string(), now);
        for number in 1..STORM {
            assert!(!strike(number, start), "{number}");
        }
        assert!(strike(STORM, start) && strike(STORM + 1, start));
        assert!(!strike(1, start + WINDOW));
    }

    #[test]
    fn one_file_that_fails_again_and_again_is_no_storm() {
        let (storm, start) = (Storm::default(), Instant::now());
        assert!((0..2 * STORM).all(|_| !storm.strike("nar/x", start)));
    }
}
