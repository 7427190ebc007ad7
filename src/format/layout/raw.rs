//! The shape of the file, with no meaning yet. Leaves are plain TOML values, as in
//! `src/config/raw.rs` and for the same reason: one place complains, about types and values alike.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use crate::config::{ConfigError, Origin, Setting, fields_of};

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) disk: BTreeMap<String, RawDisk>,
    pub(super) pool: Option<RawPool>,
    pub(super) dataset: Option<BTreeMap<String, RawDataset>>,
    pub(super) volume: BTreeMap<String, RawVolume>,
}

/// `[disk.<name>]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDisk {
    pub(super) device: Option<Value>,
    pub(super) serial: Option<Value>,
    pub(super) partlabel: Option<Value>,
    pub(super) wait: Option<Value>,
    pub(super) optional: Option<Value>,
    pub(super) partitions: Option<Value>,
}

/// One of `partitions` of a disk.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPartition {
    pub(super) name: Option<Value>,
    pub(super) size: Option<Value>,
    pub(super) r#type: Option<Value>,
    pub(super) partlabel: Option<Value>,
    pub(super) label: Option<Value>,
    pub(super) keep: Option<Value>,
}

/// `[pool]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPool {
    pub(super) name: Option<Value>,
    pub(super) guid: Option<Value>,
    pub(super) partitions: Option<Value>,
    pub(super) mirror: Option<Value>,
    pub(super) ashift: Option<Value>,
    pub(super) autotrim: Option<Value>,
}

/// `[dataset.<name>]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDataset {
    pub(super) role: Option<Value>,
    pub(super) mountpoint: Option<Value>,
    pub(super) owner: Option<Value>,
    pub(super) quota: Option<Value>,
    pub(super) properties: Option<Value>,
}

/// `[volume.<name>]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVolume {
    pub(super) partition: Option<Value>,
    pub(super) mountpoint: Option<Value>,
    pub(super) owner: Option<Value>,
    pub(super) options: Option<Value>,
}

/// Refuses the first key that nothing reads, and a value where a table must be.
pub(super) fn check_keys(origin: &Origin, table: &Table) -> Result<(), ConfigError> {
    known(origin, table, "", fields_of::<Raw>())?;
    for (section, fields) in [
        ("disk", fields_of::<RawDisk>()),
        ("dataset", fields_of::<RawDataset>()),
        ("volume", fields_of::<RawVolume>()),
    ] {
        let Some(value) = table.get(section) else { continue };
        for (name, inner) in a_table(origin, section, value)? {
            let key = format!("{section}.{name}");
            known(origin, a_table(origin, &key, inner)?, &format!("{key}."), fields)?;
        }
    }
    match table.get("pool") {
        Some(pool) => {
            known(origin, a_table(origin, "pool", pool)?, "pool.", fields_of::<RawPool>())
        }
        None => Ok(()),
    }
}

/// Reads one entry of `partitions`, which is written `{ name = "…", … }`.
pub(super) fn partition(setting: &Setting) -> Result<RawPartition, ConfigError> {
    let expected =
        "an entry such as { name = \"root\", size = \"20G\", type = \"ext4\" } is expected";
    let Some(table) = setting.value().as_table() else { return Err(setting.refuse(expected)) };
    known(setting.origin(), table, &format!("{}.", setting.key()), fields_of::<RawPartition>())?;
    RawPartition::deserialize(table.clone()).map_err(|_| setting.refuse(expected))
}

fn a_table<'a>(origin: &Origin, key: &str, value: &'a Value) -> Result<&'a Table, ConfigError> {
    value.as_table().ok_or_else(|| {
        let example = if ["disk", "dataset", "volume"].contains(&key) {
            format!("[{key}.<name>]")
        } else {
            format!("[{key}]")
        };
        Setting::new(origin, key, value.clone())
            .refuse(format!("a table is expected: {example} and its settings below it"))
    })
}

fn known(origin: &Origin, table: &Table, prefix: &str, fields: &[&str]) -> Result<(), ConfigError> {
    let Some(unknown) = table.keys().find(|key| !fields.contains(&key.as_str())) else {
        return Ok(());
    };
    let distance = |field: &&&str| strsim::damerau_levenshtein(unknown, field);
    let hint = match fields.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 1 + unknown.len() / 4 => {
            format!("did you mean {prefix}{nearest}?")
        }
        _ => format!("{} are known here", fields.join(", ")),
    };
    let key = format!("{prefix}{unknown}");
    Err(ConfigError::UnknownKey { origin: origin.clone(), key, hint })
}
