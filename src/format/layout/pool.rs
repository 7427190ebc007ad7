//! `[pool]` and `[dataset.<name>]`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use toml::Value;

use super::check::{find, mountpoint, owner};
use super::raw::{Raw, RawDataset, RawPool};
use super::{Content, Dataset, Disk, MIB, Pool};
use crate::config::{ConfigError, Origin, Section, Setting};
use crate::zfs::name::{DatasetName, NameError, PoolName};
use crate::zfs::properties::Role;

pub(super) fn pool(raw: &RawPool, disks: &[Disk], origin: &Origin) -> Result<Pool, ConfigError> {
    let section = Section { origin, prefix: "pool." };
    let whole = Setting::new(origin, "pool", Value::Table(toml::Table::new()));
    let name = match section.get("name", &raw.name) {
        Some(setting) => {
            PoolName::parse(setting.text()?).map_err(|error| setting.refuse(error.to_string()))?
        }
        None => return Err(whole.refuse("its name is missing: name = \"…\"")),
    };
    let Some(list) = section.get("partitions", &raw.partitions) else {
        return Err(whole.refuse("partitions = [\"…\"] is missing: what the pool is made of"));
    };
    let mut partitions = Vec::new();
    for item in list.list()? {
        let wanted = super::check::name(&item)?;
        if find(disks, &wanted).is_none_or(|(_, found)| found.content != Content::Zfs) {
            return Err(item.refuse("there is no partition of this name with type = \"zfs\""));
        }
        if partitions.contains(&wanted) {
            return Err(item.refuse("the same partition stands here twice"));
        }
        partitions.push(wanted);
    }
    let mut pool = Pool { name, guid: None, partitions, mirror: false, ashift: 12, autotrim: true };
    section.set("guid", &raw.guid, &mut pool.guid, guid)?;
    section.set("ashift", &raw.ashift, &mut pool.ashift, |setting| setting.integer(9..=16))?;
    section.set("autotrim", &raw.autotrim, &mut pool.autotrim, Setting::boolean)?;
    section.set("mirror", &raw.mirror, &mut pool.mirror, Setting::boolean)?;
    if pool.partitions.is_empty() {
        return Err(list.refuse("at least one partition is expected"));
    }
    if pool.mirror {
        let setting = Setting::new(origin, "pool.mirror", true.into());
        let on: BTreeSet<_> =
            pool.partitions.iter().filter_map(|name| Some(&find(disks, name)?.0.name)).collect();
        if on.len() < 2 || on.len() < pool.partitions.len() {
            return Err(
                setting.refuse("a mirror needs two or more partitions, each on its own disk")
            );
        }
    }
    Ok(pool)
}

/// A guid does not fit into the numbers of TOML, which are signed.
fn guid(setting: &Setting) -> Result<Option<u64>, ConfigError> {
    let guid = setting.value().as_str().and_then(|text| text.parse().ok());
    guid.filter(|guid| *guid != 0).map(Some).ok_or_else(|| {
        setting.refuse("a guid in quotes is expected, as `zpool get -Hp -o value guid` prints it")
    })
}

/// Parents come before children: the names are sorted.
pub(super) fn datasets(
    raw: &Raw,
    pool: Option<&Pool>,
    origin: &Origin,
) -> Result<Vec<Dataset>, ConfigError> {
    let Some(pool) = pool else {
        return match &raw.dataset {
            None => Ok(Vec::new()),
            Some(_) => Err(Setting::new(origin, "dataset", Value::Table(toml::Table::new()))
                .refuse("datasets need a pool to lie in: [pool]")),
        };
    };
    let Some(tables) = &raw.dataset else { return Ok(usual_datasets(pool)) };
    let mut datasets: Vec<Dataset> = Vec::new();
    for (name, raw) in tables {
        let dataset = dataset(name, raw, pool, origin)?;
        let parent = dataset.name.parent();
        let is_there = |parent| datasets.iter().any(|other| other.name == parent);
        if let Some(parent) = parent.filter(|parent| *parent != pool.name.root())
            && !is_there(parent.clone())
        {
            let expected = format!("its parent {parent} is missing: it needs a table of its own");
            return Err(Setting::new(origin, "dataset", name.as_str().into()).refuse(expected));
        }
        datasets.push(dataset);
    }
    Ok(datasets)
}

/// What a server with one cache needs, where the file says nothing of datasets.
fn usual_datasets(pool: &Pool) -> Vec<Dataset> {
    let usual = [
        ("snowbank", Role::Parent, Some("/var/lib/snowbank")),
        ("snowbank/default", Role::Cache, None),
        ("snowbank/state", Role::State, None),
    ];
    let named = usual.into_iter().filter_map(|(name, role, mountpoint)| {
        Some(Dataset {
            // A pool's name may be so long that nothing fits below it; `zpool create` refuses it too.
            name: below(pool, name).ok()?,
            role: Some(role),
            mountpoint: mountpoint.map(PathBuf::from),
            owner: None,
            properties: Vec::new(),
        })
    });
    named.collect()
}

fn below(pool: &Pool, name: &str) -> Result<DatasetName, String> {
    let whole = format!("{}/{name}", pool.name);
    whole.parse().map_err(|error: NameError| error.to_string())
}

fn dataset(
    name: &str,
    raw: &RawDataset,
    pool: &Pool,
    origin: &Origin,
) -> Result<Dataset, ConfigError> {
    let prefix = format!("dataset.{name}.");
    let section = Section { origin, prefix: &prefix };
    let key = Setting::new(origin, "dataset", name.into());
    let roles = [
        ("parent", Some(Role::Parent)),
        ("cache", Some(Role::Cache)),
        ("state", Some(Role::State)),
        ("plain", None),
    ];
    let role = match section.get("role", &raw.role) {
        Some(setting) => setting.one_of(&roles)?,
        None => {
            return Err(
                key.refuse("its role is missing: \"parent\", \"cache\", \"state\" or \"plain\"")
            );
        }
    };
    let mut dataset = Dataset {
        name: below(pool, name).map_err(|why| key.refuse(why))?,
        role,
        mountpoint: None,
        owner: None,
        properties: Vec::new(),
    };
    let to = &mut dataset;
    section.set("mountpoint", &raw.mountpoint, &mut to.mountpoint, mountpoint)?;
    section.set("owner", &raw.owner, &mut to.owner, owner)?;
    section.set("properties", &raw.properties, &mut to.properties, properties)?;
    if let Some(setting) = section.get("quota", &raw.quota) {
        let bytes = setting.size(64 * MIB..=i64::MAX.unsigned_abs())?;
        to.properties.push(("quota".into(), bytes.to_string()));
    }
    Ok(dataset)
}

/// Properties that have a key of their own, or that would put files where nobody expects them.
const NOT_HERE: [&str; 3] = ["mountpoint", "quota", "canmount"];

fn properties(setting: &Setting) -> Result<Vec<(String, String)>, ConfigError> {
    let Some(table) = setting.value().as_table() else {
        return Err(setting.refuse("a table is expected, such as { recordsize = \"128K\" }"));
    };
    let mut properties = Vec::new();
    for (name, value) in table {
        let inner = setting.inner(name, value);
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:.".contains(&byte);
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(inner.refuse("the name of a ZFS property is of a-z 0-9 _ : ."));
        }
        if NOT_HERE.contains(&name.as_str()) || name.starts_with("snowbank:") {
            return Err(
                inner.refuse("this property cannot be set here; see the keys of the dataset")
            );
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            _ => return Err(inner.refuse("a text or a number is expected, as after `zfs set`")),
        };
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(inner.refuse("1 to 255 bytes of one line are expected"));
        }
        properties.push((name.clone(), text));
    }
    Ok(properties)
}
