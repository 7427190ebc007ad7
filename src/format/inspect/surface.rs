//! What is on one disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::facts::{Disk, Partition, Signature, Surface, Table};
use super::super::layout::{self, MIB};
use super::super::{mark, placement};
use super::{InspectError, Located, Look};
use crate::zfs::disk::list::BlockDevice;
use crate::zfs::disk::probe::Found;

/// How much room behind a table's end says that its disk has grown: tables end up to 1 MiB before the
/// end of the disk.
const GROWN: u64 = 2 * MIB;

impl Look<'_> {
    /// Looks at a disk.
    pub(super) fn disk(
        &self,
        wanted: &layout::Disk,
        located: &Located,
        device: &BlockDevice,
    ) -> Result<Disk, InspectError> {
        let ends = Ends::read(&located.node, device.size)?;
        let signatures = self.signatures(&located.node)?;
        let surface = match &signatures[..] {
            [] if ends.are_zero => Surface::Blank,
            [] => Surface::Unknown,
            // Of a table of which `blkid` sees nothing half is gone; it has no UUID then.
            [only] if only.kind == "gpt" && only.uuid.is_some() => {
                Surface::Gpt(self.table(located, device)?)
            }
            _ => Surface::Signed(signatures),
        };
        let mut disk = Disk {
            path: located.path.clone(),
            node: located.node.clone(),
            size: device.size,
            read_only: device.read_only,
            users: self.users(device)?,
            surface,
            marked: ends.are_marked,
            remains: BTreeMap::new(),
        };
        let table = disk.table().filter(|_| !disk.marked);
        let new: Vec<_> = wanted.partitions.iter().filter(|one| !one.keep).cloned().collect();
        // Where there is no room nothing will be made.
        for placed in placement::place(&new, table, disk.size).unwrap_or_default() {
            let region = placed.start..placed.start + placed.size;
            let remains = self.zfs.probe(&located.node, Some(&region))?;
            if let Some(remains) = remains.into_iter().next() {
                disk.remains.insert(placed.name, remains.into());
            }
        }
        Ok(disk)
    }

    fn table(&self, located: &Located, device: &BlockDevice) -> Result<Table, InspectError> {
        let table = self.zfs.partition_table(&located.node)?;
        let mut partitions = Vec::new();
        for partition in table.partitions {
            let known = device.children.iter().find(|child| child.path == partition.node);
            let known = known.filter(|child| child.size == partition.size);
            let content = match known {
                Some(_) => self.signatures(&partition.node)?.into_iter().next(),
                None => {
                    let region = partition.start..partition.start + partition.size;
                    let found = self.zfs.probe(&located.node, Some(&region))?;
                    found.into_iter().next().map(Signature::from)
                }
            };
            partitions.push(Partition {
                number: partition.number,
                start: partition.start,
                size: partition.size,
                uuid: partition.uuid,
                label: partition.label,
                content,
                visible: known.is_some(),
                users: known.map(|child| self.users(child)).transpose()?.unwrap_or_default(),
                node: partition.node,
            });
        }
        let disk_has_grown = device.size.saturating_sub(table.end) >= GROWN;
        Ok(Table { partitions, disk_has_grown })
    }

    /// Who uses a device or anything on it, in words.
    fn users(&self, device: &BlockDevice) -> Result<Vec<String>, InspectError> {
        let mut users = Vec::new();
        for one in device.with_children() {
            for point in one.mountpoints() {
                users.push(match point {
                    "[SWAP]" => format!("{} is swapped to", one.path),
                    point => format!("{} is mounted at {point}", one.path),
                });
            }
            if let Some(pool) = self.in_pools.get(&one.path) {
                users.push(format!("{} is in the imported pool {}", one.path, pool.name));
            }
            for child in one.children.iter().filter(|child| child.kind != "part") {
                users.push(format!("{} is part of {} ({})", one.path, child.path, child.kind));
            }
        }
        if users.is_empty() && is_held(&device.path)? {
            let user = format!("{} is held by somebody who has it for himself alone", device.path);
            users.push(user);
        }
        Ok(users)
    }
}

impl From<Found> for Signature {
    fn from(found: Found) -> Self {
        Self { kind: found.kind, label: found.label, uuid: found.uuid }
    }
}

/// Whether the kernel has given the device to somebody alone: mounted, swapped to, in a pool, an array
/// or a mapping. For a disk also: a partition of it.
fn is_held(node: &str) -> Result<bool, InspectError> {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(node, flags, Mode::empty()) {
        Ok(_) => Ok(false),
        Err(Errno::BUSY) => Ok(true),
        Err(errno) => Err(InspectError::Io { path: node.into(), source: errno.into() }),
    }
}

/// The first and the last MiB of a disk.
struct Ends {
    /// All zero but for our mark.
    are_zero: bool,
    /// The mark is there.
    are_marked: bool,
}

impl Ends {
    fn read(node: &str, size: u64) -> Result<Self, InspectError> {
        let path = Path::new(node);
        let read = |range: Range<u64>| {
            read(path, range).map_err(|source| InspectError::Io { path: path.into(), source })
        };
        let mut first = read(0..size.min(MIB))?;
        let last = read(size.saturating_sub(MIB)..size)?;
        let position = usize::try_from(mark::POSITION).unwrap_or(usize::MAX);
        let mut are_marked = false;
        if let Some(block) = first.get_mut(position..)
            && mark::is_mark(block)
        {
            are_marked = true;
            block.fill(0);
        }
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        Ok(Self { are_zero: is_zero(&first) && is_zero(&last), are_marked })
    }
}

fn read(path: &Path, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length = usize::try_from(range.end - range.start).unwrap_or(0);
    let mut bytes = vec![0; length];
    File::open(path)?.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(write: &[(u64, &[u8])]) -> (bool, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 * MIB).unwrap();
        for (position, bytes) in write {
            file.as_file().write_all_at(bytes, *position).unwrap();
        }
        let ends = Ends::read(file.path().to_str().unwrap(), 8 * MIB).unwrap();
        (ends.are_zero, ends.are_marked)
    }

    #[test]
    fn one_byte_at_either_end_is_not_blank_and_our_mark_is_told_apart() {
        let text = mark::text(&layout::Name::parse("cache").unwrap());
        let mark: (u64, &[u8]) = (mark::POSITION, text.as_bytes());
        assert_eq!(ends(&[]), (true, false));
        assert_eq!(ends(&[(0, b"x")]), (false, false));
        assert_eq!(ends(&[(MIB - 1, b"x")]), (false, false));
        assert_eq!(ends(&[(7 * MIB, b"x")]), (false, false));
        assert_eq!(ends(&[(8 * MIB - 1, b"x")]), (false, false));
        assert_eq!(ends(&[(MIB, b"x"), (7 * MIB - 1, b"x")]), (true, false));
        assert_eq!(ends(&[mark]), (true, true));
        assert_eq!(ends(&[mark, (512, b"EFI PART")]), (false, true));
        assert_eq!(ends(&[mark, (MIB - 1, b"x")]), (false, false));
    }

    #[test]
    fn a_disk_smaller_than_its_ends_is_read_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let ends = Ends::read(file.path().to_str().unwrap(), 4096).unwrap();
        assert!(ends.are_zero && !ends.are_marked);
    }
}
