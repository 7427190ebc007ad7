//! How the datasets of the caches are, and what about them is not as the property table wants it.

use std::collections::BTreeMap;

use super::datasets::dataset_of;
use crate::config::Config;
use crate::index::state::STATE_DIRECTORY;
use crate::keep::watch::{Lying, Report, datasets_of};
use crate::zfs::properties::{Role, drift};
use crate::zfs::{Command, DatasetName, Zfs, ZfsError, property};

/// What is known of all caches.
#[derive(Debug)]
pub struct ZfsStatus {
    /// What ZFS says of the datasets and pools that they lie on.
    pub report: Report,
    /// How many snapshots each dataset has that is a cache.
    pub snapshots: BTreeMap<DatasetName, usize>,
    /// What drifted, by dataset: the parent and the state as well.
    pub drifts: Vec<Drifted>,
}

/// A property that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drifted {
    /// Of what.
    pub dataset: DatasetName,
    /// Which.
    pub property: &'static str,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// Why.
    pub reason: &'static str,
    /// Whether setting it is enough.
    pub fixable: bool,
}

/// Asks ZFS for all of it. Blocks.
pub fn look(zfs: &Zfs, config: &Config) -> Result<ZfsStatus, ZfsError> {
    let lying = config.caches.iter().map(|cache| Lying {
        cache: cache.name.clone(),
        directory: cache.directory.clone(),
        dataset: cache.dataset(&config.zfs),
    });
    let report = Report::make(zfs, datasets_of(&lying.collect::<Vec<_>>()));
    let mut snapshots = BTreeMap::new();
    let mut drifts = Vec::new();
    for cache in &config.caches {
        let Some(dataset) = dataset_of(config, cache) else { continue };
        let Some(found) = report.datasets.get(&dataset) else { continue };
        snapshots.insert(dataset.clone(), zfs.snapshots(&dataset, &[])?.len());
        drifts.extend(drifts_of(zfs, &dataset, Role::Cache)?);
        let quota = cache.max_size.filter(|wanted| found.quota != Some(*wanted));
        drifts.extend(quota.map(|wanted| Drifted {
            dataset,
            property: "quota",
            found: found.quota.map_or_else(|| "none".into(), |quota| quota.to_string()),
            wanted: wanted.to_string(),
            reason: "the configuration says so (max_size)",
            fixable: true,
        }));
    }
    if let Some(parent) = &config.zfs.dataset
        && !report.gives_nothing(&parent.pool())
    {
        let state = parent.child(STATE_DIRECTORY)?;
        for (dataset, role) in [(parent, Role::Parent), (&state, Role::State)] {
            if zfs.find_dataset(dataset)?.is_some() {
                drifts.extend(drifts_of(zfs, dataset, role)?);
            }
        }
    }
    Ok(ZfsStatus { report, snapshots, drifts })
}

fn drifts_of(zfs: &Zfs, dataset: &DatasetName, role: Role) -> Result<Vec<Drifted>, ZfsError> {
    let found = drift(role, &zfs.get(&[dataset], &role.names())?);
    let drifted = found.into_iter().map(|drift| Drifted {
        dataset: dataset.clone(),
        property: drift.wanted.name,
        found: drift.found.unwrap_or_else(|| "-".into()),
        wanted: drift.wanted.value.into(),
        reason: drift.wanted.reason,
        fixable: drift.fixable,
    });
    Ok(drifted.collect())
}

/// What puts right all that setting a property puts right: one command a dataset.
pub fn fixes(drifts: &[Drifted]) -> Vec<Command> {
    let mut by_dataset: BTreeMap<&DatasetName, Vec<(&str, &str)>> = BTreeMap::new();
    for drifted in drifts.iter().filter(|drifted| drifted.fixable) {
        let pairs = by_dataset.entry(&drifted.dataset).or_default();
        pairs.push((drifted.property, &drifted.wanted));
    }
    by_dataset.iter().map(|(dataset, pairs)| property::set(dataset, pairs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dataset_is_put_right_by_one_command_as_far_as_it_can_be() {
        let drifted = |dataset: &str, property, wanted: &str, fixable| Drifted {
            dataset: dataset.parse().unwrap(),
            property,
            found: "-".into(),
            wanted: wanted.into(),
            reason: "",
            fixable,
        };
        let drifts = [
            drifted("tank/b", "recordsize", "1M", true),
            drifted("tank/a", "atime", "off", true),
            drifted("tank/b", "utf8only", "off", false),
            drifted("tank/b", "quota", "5", true),
        ];
        let fixes: Vec<_> = fixes(&drifts).iter().map(ToString::to_string).collect();
        assert_eq!(fixes, ["zfs set atime=off tank/a", "zfs set recordsize=1M quota=5 tank/b"]);
    }
}
