//! Where new partitions go: in the order of the layout, each at the first place where it fits.

use super::facts::{Disk, Table};
use super::layout::{self, MIB, Name, Size};

/// Where a partition is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which one.
    pub name: Name,
    /// Where it begins: a multiple of 1 MiB, in bytes.
    pub start: u64,
    /// How large it is: a multiple of 1 MiB, in bytes.
    pub size: u64,
}

/// The layout wants more room than the disk has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room for the partition {name}: it needs {needed} MiB, and {free} MiB are free in one piece"
)]
pub struct NoRoom {
    /// The first partition that does not fit.
    pub name: Name,
    /// What it needs at least, in MiB.
    pub needed: u64,
    /// The largest free space, in MiB.
    pub free: u64,
}

/// What a partition of the size `rest` is worth making for: the smallest that a pool can be made on.
const LEAST_REST: u64 = 64 * MIB;

/// Finds places on `disk` for those partitions of `wanted` that `table` does not have. The table
/// itself takes the first and the last MiB.
pub fn place(
    wanted: &[layout::Partition],
    table: Option<&Table>,
    disk_size: u64,
) -> Result<Vec<Placed>, NoRoom> {
    let mut free = free_space(table, disk_size);
    let mut placed = Vec::new();
    for partition in wanted.iter().filter(|one| !is_there(one, table)) {
        let largest = free.iter().map(|(_, size)| *size).max().unwrap_or(0);
        let needed = match partition.size {
            Size::Bytes(bytes) => bytes,
            Size::Rest => largest.max(LEAST_REST),
        };
        let Some(place) = free.iter_mut().find(|(_, size)| *size >= needed) else {
            let needed = if partition.size == Size::Rest { LEAST_REST } else { needed };
            let (needed, free) = (needed / MIB, largest / MIB);
            return Err(NoRoom { name: partition.name.clone(), needed, free });
        };
        placed.push(Placed { name: partition.name.clone(), start: place.0, size: needed });
        *place = (place.0 + needed, place.1 - needed);
    }
    Ok(placed)
}

/// Whether the table has the partition, finished or begun.
pub fn is_there(partition: &layout::Partition, table: Option<&Table>) -> bool {
    table.is_some_and(|table| {
        table.labelled(partition.label.as_str()).is_some()
            || table.labelled(&partition.label.begun()).is_some()
    })
}

/// The free pieces between the partitions, as (start, size), in multiples of 1 MiB.
fn free_space(table: Option<&Table>, disk_size: u64) -> Vec<(u64, u64)> {
    let end = (disk_size / MIB).saturating_sub(1) * MIB;
    let mut taken: Vec<(u64, u64)> = table.map_or_else(Vec::new, |table| {
        table.partitions.iter().map(|one| (one.start, one.start + one.size)).collect()
    });
    taken.sort_unstable();
    taken.push((end, end));
    let (mut free, mut position) = (Vec::new(), MIB);
    for (start, stop) in taken {
        let start = start / MIB * MIB;
        if start > position {
            free.push((position, start - position));
        }
        position = position.max(stop.div_ceil(MIB) * MIB);
    }
    free
}

/// As [`place`], on a disk that is there.
pub fn place_on(disk: &Disk, wanted: &[layout::Partition]) -> Result<Vec<Placed>, NoRoom> {
    place(wanted, disk.table(), disk.size)
}

#[cfg(test)]
mod tests {
    use super::super::facts;
    use super::super::layout::Layout;
    use super::*;

    const GIB: u64 = 1024 * MIB;

    fn wanted(list: &str) -> Vec<layout::Partition> {
        let text = format!(
            "[disk.d]\nserial = 's'\npartitions = [{list}]\n[pool]\nname = 'p'\npartitions = ['pool']"
        );
        Layout::parse(&text, std::path::Path::new("l")).unwrap().disks.remove(0).partitions
    }

    const THREE: &str = "{ name = 'esp', size = '512M', type = 'esp' }, \
                         { name = 'root', size = '20G', type = 'ext4' }, \
                         { name = 'pool', size = 'rest', type = 'zfs' }";

    fn table(parts: &[(&str, u64, u64)]) -> Table {
        let partition =
            |(number, (label, start, size)): (u32, &(&str, u64, u64))| facts::Partition {
                number,
                node: format!("/dev/vda{number}"),
                start: *start,
                size: *size,
                uuid: String::new(),
                label: (*label).into(),
                content: None,
                visible: true,
                users: Vec::new(),
            };
        Table { partitions: (1..).zip(parts).map(partition).collect(), disk_has_grown: false }
    }

    fn places(list: &str, table: Option<&Table>, size: u64) -> Vec<(String, u64, u64)> {
        let placed = place(&wanted(list), table, size).unwrap();
        placed
            .into_iter()
            .map(|one| (one.name.to_string(), one.start / MIB, one.size / MIB))
            .collect()
    }

    #[test]
    fn a_blank_disk_is_filled_in_the_order_of_the_layout_and_both_ends_are_left_free() {
        assert_eq!(
            places(THREE, None, 100 * GIB),
            [
                ("esp".into(), 1, 512),
                ("root".into(), 513, 20480),
                ("pool".into(), 20993, 102400 - 1 - 20993)
            ]
        );
        // The last piece of a MiB, and the one before it, stay free.
        assert_eq!(
            places("{ name = 'pool', size = 'rest', type = 'zfs' }", None, 80 * MIB + 77)[0].2,
            78
        );
    }

    #[test]
    fn only_what_is_missing_is_made_and_only_in_free_space() {
        let there =
            table(&[("snowbank-esp", MIB, 512 * MIB), ("snowbank-root", 513 * MIB, 20 * GIB)]);
        assert_eq!(
            places(THREE, Some(&there), 100 * GIB),
            [("pool".into(), 20993, 102400 - 1 - 20993)]
        );
        let begun = table(&[("snowbank-esp.new", MIB, 512 * MIB)]);
        assert_eq!(places(THREE, Some(&begun), 100 * GIB).len(), 2);
        // Not aligned as we would, and in another order.
        let odd = table(&[("b", 30 * GIB + 512, GIB), ("snowbank-esp", 17 * 1024, 512 * MIB)]);
        let made = places(THREE, Some(&odd), 100 * GIB);
        assert_eq!(made[0], ("root".into(), 513, 20480));
        assert_eq!(made[1], ("pool".into(), 31 * 1024 + 1, 102400 - 1 - 31 * 1024 - 1));
    }

    #[test]
    fn a_gap_that_is_too_small_is_passed_over() {
        let gap = table(&[("a", MIB, GIB), ("b", 2 * GIB, 10 * GIB)]);
        let made = places(THREE, Some(&gap), 100 * GIB);
        assert_eq!(made[0], ("esp".into(), 1025, 512));
        assert_eq!(made[1], ("root".into(), 12 * 1024, 20480));
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_is_free() {
        let error = place(&wanted(THREE), None, 10 * GIB).unwrap_err();
        assert_eq!((error.name.as_str(), error.needed), ("root", 20480));
        assert_eq!(error.free, 10 * 1024 - 2 - 512);
        let full = table(&[("a", MIB, 10 * GIB - 2 * MIB)]);
        let list = "{ name = 'pool', size = 'rest', type = 'zfs' }";
        let error = place(&wanted(list), Some(&full), 10 * GIB).unwrap_err();
        assert_eq!((error.needed, error.free), (64, 0));
        assert!(place(&wanted(list), None, 0).is_err());
    }
}
