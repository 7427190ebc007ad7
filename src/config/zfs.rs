//! `[zfs]`, and what a cache says of its snapshots.

use std::time::Duration;

use super::check::Section;
use super::checked::{CacheConfig, Zfs};
use super::error::{ConfigError, Origin};
use super::raw::{RawCache, RawZfs};
use super::setting::Setting;
use crate::keep::retention::Retention;
use crate::zfs::DatasetName;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn check(raw: &RawZfs, origin: &Origin) -> Result<Zfs, ConfigError> {
    let section = Section { origin, prefix: "zfs." };
    let second = Duration::from_secs(1);
    let mut zfs = Zfs::default();
    section.set("dataset", &raw.dataset, &mut zfs.dataset, dataset)?;
    section.set("interval", &raw.interval, &mut zfs.interval, |setting| {
        setting.duration(second..=3600 * second)
    })?;
    section.set("probe_every", &raw.probe_every, &mut zfs.probe_every, |setting| {
        unless_never(setting, second..=3600 * second)
    })?;
    section.set("probe_timeout", &raw.probe_timeout, &mut zfs.probe_timeout, |setting| {
        setting.duration(second..=3600 * second)
    })?;
    Ok(zfs)
}

/// What `[cache.<name>]` says of snapshots.
pub(super) fn snapshots(
    section: &Section<'_>,
    raw: &RawCache,
    cache: &mut CacheConfig,
) -> Result<(), ConfigError> {
    let every = &mut cache.snapshot_every;
    section.set("snapshot_every", &raw.snapshot_every, every, |setting| {
        unless_never(setting, MINUTE..=366 * DAY)
    })?;
    section.set("snapshot_keep", &raw.snapshot_keep, &mut cache.snapshot_keep, retention)
}

fn unless_never(
    setting: &Setting,
    allowed: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, ConfigError> {
    match setting.value().as_str() {
        Some("never") => Ok(None),
        _ => setting.duration(allowed).map(Some),
    }
}

fn dataset(setting: &Setting) -> Result<Option<DatasetName>, ConfigError> {
    match setting.text()? {
        "none" => Ok(None),
        text => DatasetName::parse(text).map(Some).map_err(|error| {
            setting.refuse(format!(
                "\"none\" or a dataset such as \"tank/snowbank\" is expected: {error}"
            ))
        }),
    }
}

/// `["24 hourly", "7 daily"]`
fn retention(setting: &Setting) -> Result<Retention, ConfigError> {
    let mut retention = Retention::default();
    for item in setting.list()? {
        let refuse = || {
            item.refuse("a rule is expected, such as \"24 hourly\": 1 to 10000 of last, hourly, daily, weekly, monthly")
        };
        let (count, rule) = item.text()?.split_once(' ').ok_or_else(refuse)?;
        let kept = match rule {
            "last" => &mut retention.last,
            "hourly" => &mut retention.hourly,
            "daily" => &mut retention.daily,
            "weekly" => &mut retention.weekly,
            "monthly" => &mut retention.monthly,
            _ => return Err(refuse()),
        };
        let count = count.parse().ok().filter(|count| (1..=10_000).contains(count));
        if *kept != 0 {
            return Err(item.refuse("another rule says this already"));
        }
        *kept = count.ok_or_else(refuse)?;
    }
    Ok(retention)
}
