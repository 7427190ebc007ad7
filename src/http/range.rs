//! `Range` and the conditional headers, RFC 9110.

use std::ops::Range;

/// What part of a representation of `size` bytes is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// All of it.
    Whole,
    /// These bytes; never empty, always inside.
    Part(Range<u64>),
    /// Something that cannot be given: outside, several ranges, or not a range.
    Unsatisfiable,
}

/// Reads a `Range` header.
///
/// A unit other than bytes is passed over, as the RFC wants. Several ranges are refused: no client
/// of a binary cache asks for them, and answering them has been a way to exhaust servers.
pub fn asked(header: Option<&str>, size: u64) -> Asked {
    let Some(header) = header else { return Asked::Whole };
    let Some((unit, ranges)) = header.split_once('=') else { return Asked::Unsatisfiable };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    match one_range(ranges.trim(), size) {
        Some(range) if range.start < range.end => Asked::Part(range),
        _ => Asked::Unsatisfiable,
    }
}

fn one_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-')?;
    match (first, last) {
        ("", suffix) => Some(size.saturating_sub(number(suffix)?)..size),
        (first, "") => Some(number(first)?..size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first..last.saturating_add(1).min(size))
        }
    }
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large for 64 bits is beyond any end.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether an `If-None-Match` header names `tag` (with its quotes), by weak comparison.
pub fn none_match_names(header: &str, tag: &str) -> bool {
    header.trim() == "*" || header.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms_of_a_range_are_read() {
        assert_eq!(asked(None, 10), Asked::Whole);
        assert_eq!(asked(Some("bytes=0-"), 10), Asked::Part(0..10));
        assert_eq!(asked(Some("bytes=3-5"), 10), Asked::Part(3..6));
        assert_eq!(asked(Some("bytes=3-99"), 10), Asked::Part(3..10));
        assert_eq!(asked(Some("bytes=-4"), 10), Asked::Part(6..10));
        assert_eq!(asked(Some("bytes=-99"), 10), Asked::Part(0..10));
        assert_eq!(asked(Some("Bytes = 0-0"), 10), Asked::Part(0..1));
        assert_eq!(asked(Some("lines=1-2"), 10), Asked::Whole);
    }

    #[test]
    fn what_cannot_be_given_is_unsatisfiable() {
        for bad in [
            "bytes=10-",
            "bytes=-0",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=",
            "bytes=-",
            "bytes",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(asked(Some(bad), 10), Asked::Unsatisfiable, "{bad}");
        }
        assert_eq!(asked(Some("bytes=0-"), 0), Asked::Unsatisfiable);
    }

    #[test]
    fn tags_are_compared_weakly_and_one_by_one() {
        assert!(none_match_names("\"a\", W/\"b\"", "\"b\""));
        assert!(none_match_names("*", "\"b\""));
        assert!(!none_match_names("\"a\"", "\"b\""));
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_always_inside(header in "bytes=[0-9]{0,20}-[0-9]{0,20}|\\PC*", size: u64) {
            if let Asked::Part(range) = asked(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
