//! What a cache keeps, as its configuration says.

use std::time::Duration;

use super::Wanted;
use crate::bank::Room;

/// What a cache keeps, and when it is looked whether that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often; `None`: never by itself.
    pub every: Option<Duration>,
    /// What nobody has asked for in this time goes; `None`: nothing goes for its age alone.
    pub keep_unused: Option<Duration>,
    /// What came or was asked for within this stays, however much room is wanted.
    pub keep_at_least: Duration,
    /// If it takes more bytes on disk than this, room is made.
    pub above: Option<u64>,
    /// Until it takes no more than this.
    pub down_to: Option<u64>,
    /// If its file system has fewer bytes left than this, room is made.
    pub keep_free: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            every: Some(day),
            keep_unused: None,
            keep_at_least: day,
            above: None,
            down_to: None,
            keep_free: None,
        }
    }
}

impl Policy {
    /// What is wanted at `now`, in seconds since 1970, of a cache that takes `used` bytes on disk.
    pub fn wanted(&self, now: i64, used: u64, room: Room) -> Wanted {
        let too_much = match self.above {
            // A tenth below, if it is not said: a collection for every path that comes would be one too many.
            Some(above) if used > above => used - self.down_to.unwrap_or(above / 10 * 9).min(used),
            _ => 0,
        };
        let too_little_room = self.keep_free.unwrap_or(0).saturating_sub(room.available);
        Wanted {
            now,
            hold: self.keep_at_least,
            unused: self.keep_unused,
            free: too_much.max(too_little_room),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_from_the_high_mark_to_the_low_one_and_for_the_file_system() {
        let room = |available| Room { available, total: 10_000 };
        let free = |policy: Policy, used, available| policy.wanted(0, used, room(available)).free;
        let marks = Policy { above: Some(1000), down_to: Some(700), ..Policy::default() };
        assert_eq!([999, 1000, 1001, 1500].map(|used| free(marks, used, 0)), [0, 0, 301, 800]);
        let high = Policy { above: Some(1000), ..Policy::default() };
        assert_eq!(free(high, 1001, 0), 101);
        let pool = Policy { keep_free: Some(500), ..marks };
        assert_eq!([500, 400].map(|available| free(pool, 0, available)), [0, 100]);
        assert_eq!(free(pool, 1500, 400), 800, "the larger of both");
        assert_eq!(free(Policy::default(), u64::MAX, 0), 0);
    }
}
