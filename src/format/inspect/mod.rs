//! Finds out what is there. Reads only; what it reads is the devices, never what udev remembers of
//! their content.

mod find;
mod surface;
mod system;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

pub use find::wait_for_disks;

use super::facts::{Facts, ImportedPool, Member, MemberState, Signature};
use super::layout::{Layout, Name};
use super::plan;
use crate::zfs::disk::label::PoolState;
use crate::zfs::disk::list::BlockDevice;
use crate::zfs::pool::Pool;
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

/// One look: what was asked already is not asked again.
struct Look<'a> {
    zfs: &'a Zfs,
    layout: &'a Layout,
    /// All block devices.
    devices: Vec<BlockDevice>,
    /// The devices of all pools that are imported, each with its pool.
    in_pools: BTreeMap<String, Pool>,
    /// What is on each device that was looked at.
    probed: RefCell<BTreeMap<String, Vec<Signature>>>,
}

/// Looks at everything that matters for `layout`.
pub fn inspect(zfs: &Zfs, layout: &Layout, found: &Found) -> Result<Facts, InspectError> {
    let look = Look {
        zfs,
        layout,
        devices: zfs.block_devices()?,
        in_pools: devices_of_pools(zfs, layout)?,
        probed: RefCell::default(),
    };
    let ours: BTreeSet<&str> = found.values().map(|located| located.node.as_str()).collect();
    let mut facts =
        Facts { members: look.members(&ours)?, host_id: system::host_id(), ..Facts::default() };
    for disk in &layout.disks {
        // It may be gone since it was found.
        if let Some(located) = found.get(&disk.name)
            && let Some(device) = look.devices.iter().find(|device| device.path == located.node)
        {
            facts.disks.insert(disk.name.clone(), look.disk(disk, located, device)?);
        }
    }
    facts.pool = look.imported_pool()?;
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
    for partition in layout.disks.iter().flat_map(|disk| &disk.partitions) {
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
fn devices_of_pools(zfs: &Zfs, layout: &Layout) -> Result<BTreeMap<String, Pool>, InspectError> {
    let mut devices = BTreeMap::new();
    for pool in has_zfs(layout, zfs.pools())?.unwrap_or_default() {
        for vdev in zfs.status(&pool.name)?.vdevs {
            if vdev.name.starts_with('/') {
                devices.insert(system::node_of(&vdev.name), pool.clone());
            }
        }
    }
    Ok(devices)
}

impl Look<'_> {
    /// What `blkid` recognises on a whole device, or else what `wipefs` does.
    fn signatures(&self, node: &str) -> Result<Vec<Signature>, ZfsError> {
        if let Some(known) = self.probed.borrow().get(node) {
            return Ok(known.clone());
        }
        let mut found = self.zfs.probe(node, None)?;
        if found.is_empty() {
            found = self.zfs.signatures(node)?;
        }
        let found: Vec<Signature> = found.into_iter().map(Signature::from).collect();
        self.probed.borrow_mut().insert(node.to_owned(), found.clone());
        Ok(found)
    }

    /// Everything that says it is part of a pool. What is no disk of ours and cannot be read is left
    /// out: it may be a drive without a disk in it.
    fn members(&self, ours: &BTreeSet<&str>) -> Result<Vec<Member>, InspectError> {
        let mut members = Vec::new();
        for top in self.devices.iter().filter(|device| device.size > 0 && device.kind != "rom") {
            for device in top.with_children() {
                let signatures = match self.signatures(&device.path) {
                    Err(ZfsError::Failed { .. } | ZfsError::Io { .. })
                        if !ours.contains(top.path.as_str()) =>
                    {
                        continue;
                    }
                    other => other?,
                };
                if !signatures.iter().any(|found| found.kind == "zfs_member") {
                    continue;
                }
                let label = has_zfs(self.layout, self.zfs.vdev_label(&device.path))?.flatten();
                members.extend(label.map(|label| Member {
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
                }));
            }
        }
        Ok(members)
    }

    /// The pool of the layout with its datasets, if it is imported.
    fn imported_pool(&self) -> Result<Option<ImportedPool>, ZfsError> {
        let Some(wanted) = &self.layout.pool else { return Ok(None) };
        let mut ours = self.in_pools.iter().filter(|(_, pool)| pool.name == wanted.name);
        let devices: Vec<_> = ours.clone().map(|(node, _)| node.clone()).collect();
        let Some((_, pool)) = ours.next() else { return Ok(None) };
        let datasets = system::datasets(self.zfs, &pool.name.root())?;
        Ok(Some(ImportedPool { name: pool.name.clone(), guid: pool.guid, devices, datasets }))
    }
}
