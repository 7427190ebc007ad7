//! Finds out what is there. Reads only; what it reads is the devices, never what udev remembers of
//! their content.

mod find;
mod surface;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

pub use find::wait_for_disks;

use super::facts::{Facts, ImportedPool, Member, MemberState};
use super::layout::{Layout, Name};
use super::plan;
use crate::zfs::disk::label::PoolState;
use crate::zfs::disk::list::BlockDevice;
use crate::zfs::{Zfs, ZfsError};
use system::Accounts;

/// Why it is not known what is there.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A program failed.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// A device or a file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The layout names a disk in a way that does not tell it from others.
    #[error("disk {disk}: {why}")]
    Unclear {
        /// What the layout calls it.
        disk: Name,
        /// What is wrong, and what to write instead.
        why: String,
    },
}

/// A disk of the layout that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// What the commands call it: the link of the layout, or the kernel's name.
    pub path: String,
    /// The kernel's name.
    pub node: String,
}

/// Which disks of the layout were found.
pub type Found = BTreeMap<Name, Located>;

/// Looks at everything that matters for `layout`.
pub fn inspect(zfs: &Zfs, layout: &Layout, found: &Found) -> Result<Facts, InspectError> {
    let devices = zfs.block_devices()?;
    let ours: BTreeSet<&str> = found.values().map(|located| located.node.as_str()).collect();
    let in_pools = devices_of_pools(zfs, layout)?;
    let mut facts = Facts {
        members: members(zfs, layout, &devices, &ours)?,
        host_id: system::host_id(),
        ..Facts::default()
    };
    for disk in &layout.disks {
        let Some(located) = found.get(&disk.name) else { continue };
        let Some(device) = devices.iter().find(|device| device.path == located.node) else {
            // Gone between being found and being listed.
            continue;
        };
        let looked_at = surface::disk(zfs, disk, located, device, &in_pools)?;
        facts.disks.insert(disk.name.clone(), looked_at);
    }
    if let Some(pool) = &layout.pool {
        facts.pool = imported(zfs, pool)?;
    }
    let mountpoints = layout
        .datasets
        .iter()
        .filter_map(|dataset| plan::mountpoint(layout, dataset))
        .chain(layout.volumes.iter().filter_map(|volume| volume.mountpoint.clone()));
    facts.directories = system::directories(mountpoints)?;
    let accounts = Accounts::read()?;
    let owners = layout.datasets.iter().filter_map(|dataset| dataset.owner.as_ref());
    for owner in owners.chain(layout.volumes.iter().filter_map(|volume| volume.owner.as_ref())) {
        if let Some(numbers) = accounts.numbers(owner) {
            facts.owners.insert(owner.to_string(), numbers);
        }
    }
    let partitions = layout.disks.iter().flat_map(|disk| &disk.partitions);
    for partition in partitions {
        facts.new_uuids.insert(partition.name.clone(), system::new_uuid()?);
    }
    Ok(facts)
}

/// Whether there is ZFS on this machine. A layout without a pool does not need it.
fn has_zfs<T>(layout: &Layout, asked: Result<T, ZfsError>) -> Result<Option<T>, ZfsError> {
    match asked {
        Err(ZfsError::Missing { .. } | ZfsError::NoModule) if layout.pool.is_none() => Ok(None),
        other => other.map(Some),
    }
}

/// The devices of all pools that are imported, each with its pool.
fn devices_of_pools(zfs: &Zfs, layout: &Layout) -> Result<BTreeMap<String, String>, InspectError> {
    let mut devices = BTreeMap::new();
    let Some(pools) = has_zfs(layout, zfs.pools())? else { return Ok(devices) };
    for pool in pools {
        for vdev in zfs.status(&pool.name)?.vdevs {
            if vdev.name.starts_with('/') {
                let name = pool.name.to_string();
                devices.insert(system::node_of(&vdev.name), name);
            }
        }
    }
    Ok(devices)
}

/// Everything that says it is part of a pool. What is no disk of ours and cannot be read is left out:
/// it may be a drive without a disk in it.
fn members(
    zfs: &Zfs,
    layout: &Layout,
    devices: &[BlockDevice],
    ours: &BTreeSet<&str>,
) -> Result<Vec<Member>, InspectError> {
    let mut members = Vec::new();
    for top in devices.iter().filter(|device| device.size > 0 && device.kind != "rom") {
        for device in top.with_children() {
            let probed = match zfs.probe(&device.path, None) {
                Err(ZfsError::Failed { .. } | ZfsError::Io { .. })
                    if !ours.contains(top.path.as_str()) =>
                {
                    continue;
                }
                other => other?,
            };
            if !probed.iter().any(|found| found.kind == "zfs_member") {
                continue;
            }
            let Some(label) = has_zfs(layout, zfs.vdev_label(&device.path))?.flatten() else {
                continue;
            };
            members.push(Member {
                node: device.path.clone(),
                pool: label.pool,
                guid: label.pool_guid,
                state: match label.state {
                    PoolState::Active | PoolState::Other => MemberState::Active,
                    PoolState::Exported => MemberState::Exported,
                    PoolState::Destroyed => MemberState::Destroyed,
                    PoolState::NeverMade => MemberState::NeverMade,
                },
                host_id: label.host_id,
                host_name: label.host_name,
            });
        }
    }
    Ok(members)
}

/// The pool of the layout with its datasets, if it is imported.
fn imported(zfs: &Zfs, wanted: &super::layout::Pool) -> Result<Option<ImportedPool>, InspectError> {
    let Some(pool) = zfs.pool(&wanted.name)? else { return Ok(None) };
    let status = zfs.status(&wanted.name)?;
    let devices = status.vdevs.iter().filter(|vdev| vdev.name.starts_with('/'));
    Ok(Some(ImportedPool {
        name: pool.name,
        guid: pool.guid,
        devices: devices.map(|vdev| system::node_of(&vdev.name)).collect(),
        datasets: system::datasets(zfs, &wanted.name.root())?,
    }))
}
