//! Reading what `zfs` and `zpool` print with `-Hp`: lines of columns with tabs between them.
//!
//! The column that may hold anything, a mount point or a value of a property, is asked for last, so
//! that a tab in it is part of it. A line break in it makes a line with the wrong number of columns,
//! which is an error and no guess.

use std::fmt;

use super::name::is_foreign;

/// How much of a text that is not ours an error shows, in characters.
const SHOWN: usize = 80;
/// How many characters of a line go into a log: names are up to 255.
const SHOWN_IN_LINE: usize = 600;

/// `text` cut to what fits into a message of one line.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// Some lines of what a program says to people, each cut: enough for a log.
pub(super) fn shorten_lines(text: &str, count: usize) -> String {
    let lines = text.trim_end().lines().take(count);
    lines.map(|line| line.chars().take(SHOWN_IN_LINE).collect()).collect::<Vec<String>>().join("\n")
}

/// Splits a line into exactly `N` columns; the last keeps the tabs that are in it.
pub(super) fn columns<const N: usize>(line: &str) -> Result<[&str; N], String> {
    let columns: Vec<&str> = line.splitn(N, '\t').collect();
    let found = columns.len();
    columns
        .try_into()
        .map_err(|_| format!("a line of {found} columns instead of {N}: {:?}", shorten(line)))
}

/// The lines of a list but those whose first column is the name of what is not Snowbank's.
pub(super) fn ours(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !is_foreign(line.split('\t').next().unwrap_or_default()))
}

/// A whole number without sign: bytes, guids, seconds.
pub(super) fn number(text: &str) -> Result<u64, String> {
    // `parse` would take a plus sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| format!("{:?} is not a number from 0 to 2^64-1", shorten(text)))
}

/// A number where `-` and `none` say that there is none.
pub(super) fn optional_number(text: &str) -> Result<Option<u64>, String> {
    if matches!(text, "-" | "none") { Ok(None) } else { number(text).map(Some) }
}

/// A limit such as a quota, which is 0 where there is none.
pub(super) fn limit(text: &str) -> Result<Option<u64>, String> {
    Ok(optional_number(text)?.filter(|limit| *limit != 0))
}

/// A text where `-` says that there is none.
pub(super) fn optional(text: &str) -> Option<&str> {
    (text != "-").then_some(text)
}

/// A ratio with two digits after its point, as ZFS computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio {
    hundredths: u64,
}

impl Ratio {
    /// Reads `1.87`, with or without the `x` that is printed for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fault = || format!("{:?} is not a ratio such as 1.87", shorten(text));
        let (whole, part) = text.trim_end_matches('x').split_once('.').ok_or_else(fault)?;
        if part.len() != 2 {
            return Err(fault());
        }
        let (whole, part) = (number(whole)?, number(part)?);
        let hundredths = whole.checked_mul(100).and_then(|whole| whole.checked_add(part));
        Ok(Self { hundredths: hundredths.ok_or_else(fault)? })
    }

    /// The ratio as a floating-point number, for a metric.
    #[expect(clippy::cast_precision_loss, reason = "a ratio of 2^53 is none that a pool has")]
    pub fn as_f64(self) -> f64 {
        self.hundredths as f64 / 100.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:02}", self.hundredths / 100, self.hundredths % 100)
    }
}

/// Reads a size as people write it, such as `1M` or `1.63M`; a unit is 1024 times the one before.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['B', 'b']);
    let unit = text.chars().next_back().filter(char::is_ascii_alphabetic);
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    if text.len() - digits.len() > 1 {
        return None;
    }
    let shift = match unit.map(|unit| unit.to_ascii_uppercase()) {
        None => 0,
        Some(unit) => 10 * (1 + u32::try_from("KMGTPE".find(unit)?).ok()?),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let factor = 1_u64 << shift;
    let places = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(number(part).ok()?) * u128::from(factor) / u128::from(places);
    number(whole).ok()?.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_column_keeps_its_tabs_and_a_missing_one_is_an_error() {
        assert_eq!(columns("a\tb\tc\td").unwrap(), ["a", "b", "c\td"]);
        let error = columns::<3>("a\tb").unwrap_err();
        assert_eq!(error, "a line of 2 columns instead of 3: \"a\\tb\"");
    }

    #[test]
    fn lines_about_what_is_somebody_elses_are_passed_over_and_odd_ones_are_not() {
        let lines: Vec<&str> = ours("tank\t1\nmy pool\t2\n\ntank/a@-x\t3\nä\t4").collect();
        assert_eq!(lines, ["tank\t1", "", "ä\t4"]);
    }

    #[test]
    fn numbers_reach_from_zero_to_the_largest() {
        assert_eq!(number("0").unwrap(), 0);
        assert_eq!(number("18446744073709551615").unwrap(), u64::MAX);
        for text in ["", "-", "-1", "+1", "1.5", " 1", "18446744073709551616", "1K", "0x1", "١"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        assert_eq!(optional_number("-").unwrap(), None);
        assert_eq!(limit("0").unwrap(), None);
        assert_eq!(limit("18446744073709551615").unwrap(), Some(u64::MAX));
    }

    #[test]
    fn a_ratio_is_exact_to_its_hundredths() {
        assert_eq!(Ratio::parse("1.87").unwrap().to_string(), "1.87");
        assert_eq!(Ratio::parse("12.05x").unwrap().to_string(), "12.05");
        assert!((Ratio::parse("1.07").unwrap().as_f64() - 1.07).abs() < 1e-9);
        for text in ["1", "1.5", "-", "", "x", "1.555", "18446744073709551615.00"] {
            assert!(Ratio::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_for_people_are_read_in_powers_of_1024() {
        assert_eq!(size("0B"), Some(0));
        assert_eq!(size("512"), Some(512));
        assert_eq!(size("128K"), Some(131_072));
        assert_eq!(size("1M"), Some(1_048_576));
        assert_eq!(size("1.50M"), Some(1_572_864));
        assert_eq!(size("16E"), None);
        for text in ["", "K", "1KM", "1.2.3", "-1K", "none", "1Q"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_panic(text in ".{0,40}") {
            let _ = (number(&text), Ratio::parse(&text), size(&text), limit(&text));
            let _ = (columns::<3>(&text), shorten(&text));
        }

        #[test]
        fn every_number_is_read_as_it_was_written(value in any::<u64>()) {
            prop_assert_eq!(number(&value.to_string()), Ok(value));
            prop_assert_eq!(size(&value.to_string()), Some(value));
        }
    }
}
