//! One value with the place it came from, and the ways to read it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::error::{ConfigError, Origin};

/// A value, its key, and where it was written, so that every complaint can name all three.
#[derive(Clone)]
pub(crate) struct Setting {
    origin: Origin,
    key: String,
    value: Value,
}

impl Setting {
    pub(crate) fn new(origin: &Origin, key: impl Into<String>, value: Value) -> Self {
        Self { origin: origin.clone(), key: key.into(), value }
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The same value under another key, such as one with a position in a list.
    pub(crate) fn with_key(&self, key: impl Into<String>) -> Self {
        Self::new(&self.origin, key, self.value.clone())
    }

    /// The setting `name` of a table.
    pub(crate) fn inner(&self, name: &str, value: &Value) -> Self {
        Self::new(&self.origin, format!("{}.{name}", self.key), value.clone())
    }

    /// The error for this value; `expected` says what is allowed.
    pub(crate) fn refuse(&self, expected: impl Into<String>) -> ConfigError {
        let written = self.value.to_string().replace('\n', " ");
        let value = match written.char_indices().nth(100) {
            Some((end, _)) => format!("{}…", &written[..end]),
            None => written,
        };
        let (origin, key) = (self.origin.clone(), self.key.clone());
        ConfigError::Value { origin, key, value, expected: expected.into() }
    }

    pub(crate) fn text(&self) -> Result<&str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.refuse("a text in quotes is expected"))
    }

    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.refuse("true or false is expected"))
    }

    pub(crate) fn integer<N>(&self, allowed: RangeInclusive<N>) -> Result<N, ConfigError>
    where
        N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
    {
        let number = self.value.as_integer().and_then(|number| N::try_from(number).ok());
        number.filter(|number| allowed.contains(number)).ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            self.refuse(format!("a whole number from {least} to {most} is expected"))
        })
    }

    /// Bytes: a whole number, or a text such as `"64M"`. The units are powers of 1024, as in
    /// `zfs set quota=`.
    pub(crate) fn size(&self, allowed: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let bytes = match &self.value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            Value::String(text) => parse_size(text),
            _ => None,
        };
        bytes.filter(|bytes| allowed.contains(bytes)).ok_or_else(|| {
            let (least, most) = (print_size(*allowed.start()), print_size(*allowed.end()));
            self.refuse(format!(
                "a size in bytes is expected, such as 65536, \"64M\" or \"50G\" (from {least} to {most})"
            ))
        })
    }

    /// A time with its unit, such as `"10s"`. A bare number is refused: nobody can see whether it is
    /// seconds or milliseconds.
    pub(crate) fn duration(
        &self,
        allowed: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let time = self.value.as_str().and_then(parse_duration);
        time.filter(|time| allowed.contains(time)).ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            self.refuse(format!(
                "a time is expected, such as \"500ms\", \"10s\", \"5m\", \"1h\" or \"90d\" (from {least:?} to {most:?})"
            ))
        })
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = words.iter().find(|(word, _)| self.value.as_str() == Some(*word));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.refuse(format!("one of {} is expected", words.join(", ")))
        })
    }

    /// The items of a list, each a setting of its own.
    pub(crate) fn list(&self) -> Result<impl Iterator<Item = Self>, ConfigError> {
        let items = self
            .value
            .as_array()
            .ok_or_else(|| self.refuse("a list is expected, such as [\"…\", \"…\"]"))?;
        Ok(items.iter().map(|item| Self::new(&self.origin, self.key.clone(), item.clone())))
    }

    /// A path; `~/` is the home directory, and a relative one is taken from `base`.
    pub(crate) fn path(&self, base: &Path, home: Option<&Path>) -> Result<PathBuf, ConfigError> {
        let text = self.text()?;
        if text.is_empty() || text.contains('\0') {
            return Err(self.refuse("a path is expected"));
        }
        match text.strip_prefix("~/") {
            Some(rest) => home
                .map(|home| home.join(rest))
                .ok_or_else(|| self.refuse("~ cannot be used while HOME is empty")),
            None => Ok(base.join(text)),
        }
    }
}

/// The units of a size, largest last.
const SIZE_UNITS: [(&str, u64); 4] =
    [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// Reads `"64M"`, `"64MiB"` or `"64MB"` (all 64 × 1024²), or a bare number.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = match SIZE_UNITS.iter().find(|(letter, _)| unit.starts_with(letter)) {
        Some((_, factor)) if ["", "B", "iB"].contains(&&unit[1..]) => *factor,
        Some(_) => return None,
        None if unit.is_empty() => 1,
        None => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn print_size(bytes: u64) -> String {
    let whole = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    match SIZE_UNITS.iter().rev().find(whole) {
        Some((letter, factor)) => format!("{}{letter}", bytes / factor),
        None => bytes.to_string(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(24 * 3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_in_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64M", 64 << 20), ("50 GiB", 50 << 30)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "64X", "64Mb", "99999999999T", "1 0"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!((print_size(64 << 20), print_size(1500)), ("64M".into(), "1500".into()));
    }

    #[test]
    fn a_time_without_a_unit_is_refused() {
        assert_eq!(parse_duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("90d"), Some(Duration::from_secs(90 * 24 * 3600)));
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "10sec", "99999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
