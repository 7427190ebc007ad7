//! Which scheduled snapshots stay.
//!
//! A rule keeps, for so many hours (days, weeks, months) *that have a snapshot*, the last snapshot of
//! each. Nothing goes by age, so a server that was off for a month, or whose clock jumped, loses
//! nothing by it. Times are UTC, which has no hour that comes twice.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// How many snapshots stay, by rule. Without any rule, all stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// The last so many, whenever they were made.
    pub last: u32,
    /// The last of an hour, for so many hours.
    pub hourly: u32,
    /// The last of a day, for so many days.
    pub daily: u32,
    /// The last of a week, which begins on Monday, for so many weeks.
    pub weekly: u32,
    /// The last of a month, for so many months.
    pub monthly: u32,
}

/// The part of the time that a snapshot stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Period {
    Hour(Date, i8),
    Day(Date),
    Week(Date),
    Month(i16, i8),
}

/// For how many periods the last snapshot stays, and which period a moment is in: its day and hour.
type Rule = (u32, fn(Date, i8) -> Period);

impl Retention {
    /// Whether nothing is ever let go of.
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// Which of the snapshots go; each is given by when it was made, in seconds since 1970.
    pub fn expired<T: Clone>(&self, snapshots: &[(i64, T)]) -> Vec<T> {
        if self.keeps_all() {
            return Vec::new();
        }
        let mut newest_first: Vec<_> = snapshots.iter().collect();
        newest_first.sort_by_key(|(made, _)| std::cmp::Reverse(*made));
        let mut stays = vec![false; newest_first.len()];
        for kept in stays.iter_mut().take(self.last.try_into().unwrap_or(usize::MAX)) {
            *kept = true;
        }
        let rules: [Rule; 4] = [
            (self.hourly, Period::Hour),
            (self.daily, |date, _| Period::Day(date)),
            (self.weekly, |date, _| Period::Week(monday(date))),
            (self.monthly, |date, _| Period::Month(date.year(), date.month())),
        ];
        for (mut left, period_of) in rules {
            let mut previous = None;
            for (index, (made, _)) in newest_first.iter().enumerate() {
                // A time that is none cannot be judged, and stays.
                let Ok(time) = Timestamp::from_second(*made) else {
                    stays[index] = true;
                    continue;
                };
                let time = TimeZone::UTC.to_datetime(time);
                let period = period_of(time.date(), time.hour());
                if left == 0 || previous == Some(period) {
                    continue;
                }
                (previous, left) = (Some(period), left - 1);
                stays[index] = true;
            }
        }
        let goes = newest_first.iter().zip(stays).filter(|(_, stays)| !stays);
        goes.map(|((_, snapshot), _)| snapshot.clone()).collect()
    }
}

/// The Monday on or before a day; the day itself at the beginning of all dates.
fn monday(date: Date) -> Date {
    let days = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(jiff::Span::new().days(days)).unwrap_or(date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn stays(retention: Retention, times: &[&str]) -> Vec<String> {
        let snapshots: Vec<_> = times.iter().map(|time| (at(time), (*time).to_owned())).collect();
        let gone = retention.expired(&snapshots);
        times.iter().map(|time| (*time).to_owned()).filter(|time| !gone.contains(time)).collect()
    }

    #[test]
    fn the_last_of_each_period_stays() {
        let times = [
            "2026-03-01T10:05:00Z",
            "2026-03-01T10:55:00Z",
            "2026-03-01T11:05:00Z",
            "2026-03-02T00:10:00Z",
            "2026-03-09T00:10:00Z",
        ];
        let hourly = Retention { hourly: 2, ..Retention::default() };
        assert_eq!(stays(hourly, &times), times[3..]);
        let daily = Retention { daily: 3, ..Retention::default() };
        assert_eq!(stays(daily, &times), times[2..]);
        // The first of March was a Sunday: three weeks.
        let weekly = Retention { weekly: 9, ..Retention::default() };
        assert_eq!(stays(weekly, &times), times[2..]);
        let monthly = Retention { monthly: 9, ..Retention::default() };
        assert_eq!(stays(monthly, &times), times[4..]);
        let last = Retention { last: 1, ..Retention::default() };
        assert_eq!(stays(last, &times), times[4..]);
    }

    #[test]
    fn without_a_rule_and_without_a_readable_time_nothing_goes() {
        assert_eq!(Retention::default().expired(&[(1, 'a'), (2, 'b')]), []);
        let daily = Retention { daily: 1, ..Retention::default() };
        assert_eq!(daily.expired(&[(i64::MAX, 'a'), (2, 'b')]), []);
    }

    proptest! {
        #[test]
        fn the_newest_always_stays_and_no_more_stay_than_the_rules_add_up_to(
            times in prop::collection::btree_set(0_i64..4_000_000_000, 1..60),
            (last, hourly, daily, weekly, monthly) in (0_u32..5, 0_u32..5, 0_u32..5, 0_u32..5, 0_u32..5),
        ) {
            let retention = Retention { last, hourly, daily, weekly, monthly };
            prop_assume!(!retention.keeps_all());
            let snapshots: Vec<_> = times.iter().map(|time| (*time, *time)).collect();
            let gone = retention.expired(&snapshots);
            let kept: Vec<_> = times.iter().filter(|time| !gone.contains(time)).copied().collect();
            prop_assert_eq!(kept.last(), times.last());
            let sum = last + hourly + daily + weekly + monthly;
            prop_assert!(kept.len() <= usize::try_from(sum).unwrap());
            // Judged again, nothing more goes.
            let again: Vec<_> = kept.iter().map(|time| (*time, *time)).collect();
            prop_assert_eq!(retention.expired(&again), Vec::<i64>::new());
        }
    }
}
