//! Which device is which disk of the layout, and waiting for those that are late.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::layout::{Disk, FoundBy, Layout};
use super::{Found, InspectError, Located};
use crate::zfs::Zfs;
use crate::zfs::disk::list::BlockDevice;

/// How often it is looked for a disk that is late. Cloud volumes take seconds to minutes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks for the disks of the layout until all are there, or those that are not have had their time.
/// `late` is told once of each disk that is waited for.
///
/// It looks again and again, because there is nothing to wait on: `udevadm settle` waits for what the
/// kernel has already seen, and this is about what it has not.
pub fn wait_for_disks(
    zfs: &Zfs,
    layout: &Layout,
    late: &mut dyn FnMut(&Disk),
) -> Result<Found, InspectError> {
    let start = Instant::now();
    let mut told = Vec::new();
    loop {
        let devices = zfs.block_devices()?;
        let mut found = Found::new();
        let mut waiting = false;
        for disk in &layout.disks {
            match locate(disk, &devices)? {
                Some(located) => {
                    found.insert(disk.name.clone(), located);
                }
                None if start.elapsed() < disk.wait => {
                    waiting = true;
                    if !told.contains(&&disk.name) {
                        told.push(&disk.name);
                        late(disk);
                    }
                }
                None => {}
            }
        }
        if !waiting {
            all_differ(layout, &found)?;
            return Ok(found);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The device of a disk; `None` where it is not there yet.
fn locate(disk: &Disk, devices: &[BlockDevice]) -> Result<Option<Located>, InspectError> {
    let unclear = |why: String| InspectError::Unclear { disk: disk.name.clone(), why };
    let (path, device) = match &disk.found_by {
        FoundBy::Device(link) => match resolve(link).map_err(unclear)? {
            Some(node) => {
                let device = devices.iter().find(|device| device.path == node);
                if device.is_none() && is_part_of_another(devices, &node) {
                    let why = format!("{} is a part of a disk: name the disk", link.display());
                    return Err(unclear(why));
                }
                (Some(link.to_string_lossy().into_owned()), device)
            }
            None => return Ok(None),
        },
        FoundBy::Serial(serial) => {
            let is_it = |device: &&BlockDevice| {
                device.serial.as_deref().is_some_and(|one| one.trim() == serial)
            };
            (None, only(devices.iter().filter(is_it), "this serial number").map_err(unclear)?)
        }
        FoundBy::PartLabel(label) => {
            let is_it = |device: &&BlockDevice| {
                device.children.iter().any(|part| part.part_label.as_ref() == Some(label))
            };
            let what = "a partition of this GPT name";
            (None, only(devices.iter().filter(is_it), what).map_err(unclear)?)
        }
    };
    Ok(device.filter(|device| device.size > 0).map(|device| {
        let node = device.path.clone();
        Located { path: path.unwrap_or_else(|| node.clone()), node }
    }))
}

/// What a link in `/dev` leads to; `None` while it is not there, or leads to nothing.
fn resolve(link: &Path) -> Result<Option<String>, String> {
    let Ok(metadata) = std::fs::symlink_metadata(link) else { return Ok(None) };
    if metadata.file_type().is_block_device() {
        return Err(format!(
            "{} is a name that the kernel gives anew at every boot, perhaps to another disk: use a \
             link below /dev/disk/by-id, or the serial number",
            link.display()
        ));
    }
    let Ok(node) = std::fs::canonicalize(link) else { return Ok(None) };
    let is_device = std::fs::metadata(&node).is_ok_and(|node| node.file_type().is_block_device());
    if !is_device {
        return Err(format!("{} leads to {}, which is no disk", link.display(), node.display()));
    }
    Ok(Some(node.to_string_lossy().into_owned()))
}

fn is_part_of_another(devices: &[BlockDevice], node: &str) -> bool {
    devices.iter().any(|device| device.with_children().iter().skip(1).any(|one| one.path == node))
}

/// The only one of those that have it.
fn only<'a>(
    mut devices: impl Iterator<Item = &'a BlockDevice>,
    what: &str,
) -> Result<Option<&'a BlockDevice>, String> {
    let Some(first) = devices.next() else { return Ok(None) };
    match devices.next() {
        None => Ok(Some(first)),
        Some(second) => Err(format!(
            "both {} and {} have {what}: find it in another way",
            first.path, second.path
        )),
    }
}

fn all_differ(layout: &Layout, found: &Found) -> Result<(), InspectError> {
    for (position, disk) in layout.disks.iter().enumerate() {
        let node = found.get(&disk.name).map(|located| &located.node);
        let before = layout.disks.iter().take(position);
        let mut same = before
            .filter(|other| node.is_some() && found.get(&other.name).map(|one| &one.node) == node);
        if let Some(other) = same.next() {
            let why = format!("it is the same device as disk {}", other.name);
            return Err(InspectError::Unclear { disk: disk.name.clone(), why });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::Name;
    use super::*;
    use crate::zfs::testing::Fake;

    const DEVICES: &str = r#"{"blockdevices": [
        {"name": "vda", "path": "/dev/vda", "type": "disk", "size": 10, "ro": false,
         "serial": " s1 ", "partlabel": null, "partuuid": null, "mountpoints": [null],
         "children": [{"name": "vda1", "path": "/dev/vda1", "type": "part", "size": 5, "ro": false,
           "serial": null, "partlabel": "ESP", "partuuid": "u", "mountpoints": ["/boot"]}]},
        {"name": "vdb", "path": "/dev/vdb", "type": "disk", "size": 10, "ro": false,
         "serial": "twice", "partlabel": null, "partuuid": null, "mountpoints": [null]},
        {"name": "vdc", "path": "/dev/vdc", "type": "disk", "size": 10, "ro": false,
         "serial": "twice", "partlabel": null, "partuuid": null, "mountpoints": [null]},
        {"name": "vdd", "path": "/dev/vdd", "type": "disk", "size": 0, "ro": false,
         "serial": "empty", "partlabel": null, "partuuid": null, "mountpoints": [null]}]}"#;

    fn layout(found_by: &str) -> Layout {
        let text = format!("[disk.d]\n{found_by}\nwait = '0s'\n[volume.v]\npartition = 'd'\n");
        Layout::parse(&text, Path::new("l")).unwrap()
    }

    fn wait(layout: &Layout) -> Result<Option<String>, String> {
        let fake = Fake::new("exit 1");
        let script = format!("cat <<'X'\n{DEVICES}\nX");
        let zfs = fake.zfs.with_program("lsblk", fake.install("lsblk", &script));
        let found = wait_for_disks(&zfs, layout, &mut |_| {}).map_err(|error| error.to_string())?;
        Ok(found.get(&Name::parse("d").unwrap()).map(|located| located.node.clone()))
    }

    #[test]
    fn a_disk_is_found_by_its_serial_number_or_by_a_partition_on_it() {
        assert_eq!(wait(&layout("serial = 's1'")), Ok(Some("/dev/vda".into())));
        assert_eq!(wait(&layout("partlabel = 'ESP'")), Ok(Some("/dev/vda".into())));
        for missing in ["serial = 's2'", "partlabel = 'esp'", "device = '/dev/disk/by-id/nope'"] {
            assert_eq!(wait(&layout(missing)), Ok(None), "{missing}");
        }
        assert_eq!(wait(&layout("serial = 'empty'")), Ok(None), "a drive without a medium");
    }

    #[test]
    fn two_disks_that_cannot_be_told_apart_are_refused() {
        let error = wait(&layout("serial = 'twice'")).unwrap_err();
        assert!(error.starts_with("disk d: both /dev/vdb and /dev/vdc have"), "{error}");
    }

    /// Defect 8: `/dev/nvme1n1` and `/dev/nvme2n1` may be swapped at the next boot.
    #[test]
    fn what_is_not_a_link_to_a_disk_is_refused() {
        let error = wait(&layout("device = '/dev/fd'")).unwrap_err();
        assert!(error.contains("which is no disk"), "{error}");
        let metadata = std::fs::symlink_metadata("/dev/loop0");
        if metadata.is_ok_and(|node| node.file_type().is_block_device()) {
            let error = wait(&layout("device = '/dev/loop0'")).unwrap_err();
            assert!(error.contains("the kernel gives anew at every boot"), "{error}");
        }
    }

    #[test]
    fn one_device_is_not_two_disks() {
        let text = "[disk.a]\nserial = 's1'\n[disk.b]\npartlabel = 'ESP'\n\
                    [volume.a]\npartition = 'a'\n[volume.b]\npartition = 'b'";
        let layout = Layout::parse(text, Path::new("l")).unwrap();
        let error = wait(&layout).unwrap_err();
        assert_eq!(error, "disk b: it is the same device as disk a");
    }

    #[test]
    fn a_disk_that_comes_late_is_waited_for_and_told_of_once() {
        let directory = tempfile::tempdir().unwrap();
        let count = directory.path().join("count");
        let fake = Fake::new("exit 1");
        let script = format!(
            "echo x >> {0}; if [ $(wc -l < {0}) -gt 3 ]; then cat <<'X'\n{DEVICES}\nX\n\
             else echo '{{\"blockdevices\": []}}'; fi",
            count.display()
        );
        let zfs = fake.zfs.with_program("lsblk", fake.install("lsblk", &script));
        let mut layout = layout("serial = 's1'");
        layout.disks[0].wait = Duration::from_secs(60);
        let mut told = 0;
        let found = wait_for_disks(&zfs, &layout, &mut |_| told += 1).unwrap();
        assert_eq!((found.len(), told), (1, 1));
    }
}
