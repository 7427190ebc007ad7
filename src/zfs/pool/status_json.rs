//! `zpool status -j -pP --json-int -v`, as OpenZFS 2.3 and later print it.
//!
//! Fields that are not named here are passed over: later versions add some. Numbers are numbers by
//! `--json-int`, and guids among them reach beyond 2^63.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::name::PoolName;
use super::super::text::shorten;
use super::status::{Health, MAX_FILES, PoolStatus, Scan, ScanKind, ScanState, Vdev, one_line};

/// What is deeper is none of ZFS's: a spare in a replacing vdev of a mirror is five.
const MAX_DEPTH: usize = 16;

#[derive(Deserialize)]
struct Document {
    pools: BTreeMap<String, Pool>,
}

#[derive(Deserialize)]
struct Pool {
    state: String,
    status: Option<String>,
    msgid: Option<String>,
    scan_stats: Option<ScanStats>,
    #[serde(default)]
    vdevs: BTreeMap<String, Device>,
    /// Devices beside the data: each kind is its own map.
    #[serde(default)]
    dedup: BTreeMap<String, Device>,
    #[serde(default)]
    special: BTreeMap<String, Device>,
    #[serde(default)]
    logs: BTreeMap<String, Device>,
    #[serde(default)]
    l2cache: BTreeMap<String, Device>,
    #[serde(default)]
    spares: BTreeMap<String, Device>,
    /// Absent where there are none, or may not be seen.
    error_count: Option<Number>,
    /// The files, or a text that says why there is no list.
    #[serde(default)]
    errlist: Value,
}

#[derive(Deserialize)]
struct ScanStats {
    function: String,
    state: String,
    start_time: Option<Number>,
    end_time: Option<Number>,
    errors: Option<Number>,
    /// What was read; `examined` is what was planned to be read, which is other.
    issued: Option<Number>,
    to_examine: Option<Number>,
    scrub_pause: Option<Number>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    state: String,
    #[serde(default)]
    read_errors: Option<Number>,
    #[serde(default)]
    write_errors: Option<Number>,
    #[serde(default)]
    checksum_errors: Option<Number>,
    #[serde(default)]
    vdevs: BTreeMap<String, Device>,
}

/// A number, or the text of one; a text that is none, such as `-`, is no number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

fn value(number: Option<&Number>) -> Option<u64> {
    number.and_then(Number::value)
}

/// A time, where 0 is none.
fn time(number: Option<&Number>) -> Option<u64> {
    value(number).filter(|time| *time != 0)
}

/// Reads the status of `name`.
pub(super) fn parse(text: &str, name: &PoolName) -> Result<PoolStatus, String> {
    let document: Document =
        serde_json::from_str(text).map_err(|error| format!("{error} in {:?}", shorten(text)))?;
    let pool = document.pools.get(name.as_str()).ok_or("the pool is not in it")?;
    let mut vdevs = Vec::new();
    let data = (&pool.vdevs, 0);
    let beside = [&pool.dedup, &pool.special, &pool.logs, &pool.l2cache, &pool.spares];
    for (devices, depth) in std::iter::once(data).chain(beside.map(|devices| (devices, 1))) {
        collect(devices, depth, &mut vdevs)?;
    }
    let files = pool.errlist.as_array().into_iter().flatten().take(MAX_FILES);
    Ok(PoolStatus {
        pool: name.clone(),
        health: Health::parse(&pool.state),
        message_id: pool.msgid.clone(),
        message: pool.status.as_deref().map(one_line),
        scan: pool.scan_stats.as_ref().and_then(scan),
        vdevs,
        error_count: value(pool.error_count.as_ref()),
        damaged_files: files.filter_map(|file| file.as_str().map(String::from)).collect(),
    })
}

fn collect(
    devices: &BTreeMap<String, Device>,
    depth: usize,
    vdevs: &mut Vec<Vdev>,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("vdevs lie deeper in each other than ZFS has them".into());
    }
    for device in devices.values() {
        vdevs.push(Vdev {
            name: device.name.clone(),
            depth,
            health: Health::parse(&device.state),
            read_errors: value(device.read_errors.as_ref()).unwrap_or(0),
            write_errors: value(device.write_errors.as_ref()).unwrap_or(0),
            checksum_errors: value(device.checksum_errors.as_ref()).unwrap_or(0),
        });
        collect(&device.vdevs, depth + 1, vdevs)?;
    }
    Ok(())
}

fn scan(stats: &ScanStats) -> Option<Scan> {
    if stats.function == "NONE" {
        return None;
    }
    let paused = value(stats.scrub_pause.as_ref()).is_some_and(|time| time != 0);
    Some(Scan {
        kind: match stats.function.as_str() {
            "SCRUB" => ScanKind::Scrub,
            "RESILVER" => ScanKind::Resilver,
            _ => ScanKind::Other,
        },
        state: match stats.state.as_str() {
            "FINISHED" => ScanState::Finished,
            "CANCELED" => ScanState::Cancelled,
            _ if paused => ScanState::Paused,
            _ => ScanState::Running,
        },
        start: time(stats.start_time.as_ref()),
        end: time(stats.end_time.as_ref()),
        errors: value(stats.errors.as_ref()).unwrap_or(0),
        examined: value(stats.issued.as_ref()),
        to_examine: value(stats.to_examine.as_ref()),
    })
}

#[cfg(test)]
mod tests;
