//! What `[cache.<name>]` says of what it keeps.

use std::time::Duration;

use super::check::Section;
use super::error::ConfigError;
use super::raw::RawCache;
use super::setting::Setting;
use crate::keep::collect::policy::Policy;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
const LOWER: &str = "less than collect_above is expected";
const NO_HIGH_MARK: &str = "it takes collect_above as well, which says when room is made";

pub(super) fn check(section: &Section<'_>, raw: &RawCache) -> Result<Policy, ConfigError> {
    let mut policy = Policy::default();
    section.set("collect_every", &raw.collect_every, &mut policy.every, |setting| {
        unless("never", setting, |setting| setting.duration(SECOND..=YEAR))
    })?;
    section.set("keep_unused", &raw.keep_unused, &mut policy.keep_unused, |setting| {
        unless("forever", setting, |setting| setting.duration(Duration::ZERO..=100 * YEAR))
    })?;
    section.set("keep_at_least", &raw.keep_at_least, &mut policy.keep_at_least, |setting| {
        setting.duration(Duration::ZERO..=YEAR)
    })?;
    section.set("collect_above", &raw.collect_above, &mut policy.above, size)?;
    section.set("collect_to", &raw.collect_to, &mut policy.down_to, size)?;
    section.set("keep_free", &raw.keep_free, &mut policy.keep_free, size)?;
    if let Some(low) = policy.down_to
        && let Some(setting) = section.get("collect_to", &raw.collect_to)
    {
        match policy.above {
            None => return Err(setting.refuse(NO_HIGH_MARK)),
            Some(high) if low >= high => return Err(setting.refuse(LOWER)),
            Some(_) => {}
        }
    }
    Ok(policy)
}

/// How often a cache is verified.
pub(super) fn verification(
    section: &Section<'_>,
    raw: &RawCache,
    every: &mut Option<Duration>,
) -> Result<(), ConfigError> {
    section.set("verify_every", &raw.verify_every, every, |setting| {
        unless("never", setting, |setting| setting.duration(SECOND..=YEAR))
    })
}

fn size(setting: &Setting) -> Result<Option<u64>, ConfigError> {
    unless("none", setting, |setting| setting.size(0..=i64::MAX.unsigned_abs()))
}

fn unless<T>(
    word: &str,
    setting: &Setting,
    read: impl FnOnce(&Setting) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    if setting.value().as_str() == Some(word) { Ok(None) } else { read(setting).map(Some) }
}
