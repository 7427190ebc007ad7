//! Times as people write and read them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Reads when a token ends, as seconds since 1970: `90d`, `12h` or `4w` from `now`, a day (its
/// beginning, UTC), a time such as `2027-01-31T12:00:00Z`, or `never`.
pub(super) fn expiry(text: &str, now: Timestamp) -> Result<Option<i64>, String> {
    if text == "never" {
        return Ok(None);
    }
    let end = from_now(text, now)
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| start_of(day(text)?))
        .ok_or("90d, 12h, 4w, 2027-01-31, 2027-01-31T12:00:00Z or never is expected")?;
    if end <= now {
        return Err(format!("{end} is over already"));
    }
    Ok(Some(end.as_second()))
}

/// A day alone: a time without its zone would mean another moment to each reader.
fn day(text: &str) -> Option<Date> {
    if text.contains(['T', 't', ' ']) { None } else { text.parse().ok() }
}

/// The first moment of a day, UTC.
fn start_of(day: Date) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()
}

fn from_now(text: &str, now: Timestamp) -> Option<Timestamp> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        "w" => 7 * 24,
        _ => return None,
    };
    let hours = number.parse::<i64>().ok()?.checked_mul(hours)?;
    let seconds = hours.checked_mul(3600)?;
    now.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// `2027-01-31T12:00:00Z`
pub(super) fn show(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_in_each_form_and_shown_in_one() {
        let now: Timestamp = "2026-11-02T03:04:05Z".parse().unwrap();
        for (text, end) in [
            ("1h", "2026-11-02T04:04:05Z"),
            ("90d", "2027-01-31T03:04:05Z"),
            ("1w", "2026-11-09T03:04:05Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31T12:00:00+01:00", "2027-01-31T11:00:00Z"),
        ] {
            let read = expiry(text, now).unwrap().unwrap();
            assert_eq!(show(read), end, "{text}");
        }
        assert_eq!(expiry("never", now), Ok(None));
    }

    #[test]
    fn what_is_no_end_or_is_over_is_refused() {
        let now: Timestamp = "2026-11-02T03:04:05Z".parse().unwrap();
        for text in [
            "",
            "2027-01-31T12:00:00",
            "90",
            "90x",
            "-1d",
            "0d",
            "2026-11-02",
            "99999999999999999d",
            "tomorrow",
        ] {
            assert!(expiry(text, now).is_err(), "{text}");
        }
    }
}
