//! The block devices of the machine, as `lsblk` lists them.

use serde::Deserialize;

use super::super::error::ZfsError;
use super::super::handle::Zfs;
use super::super::text::shorten;
use super::command;

/// The columns that are asked for: all that [`BlockDevice`] holds. What is *on* a device is not asked
/// for here: these columns come from udev's memory, which may be older than the disk's content. `NAME`
/// makes it a tree.
const COLUMNS: &str = "NAME,PATH,TYPE,SIZE,RO,SERIAL,PARTLABEL,PARTUUID,MOUNTPOINTS";

/// A disk, a partition, or something made of one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BlockDevice {
    /// The kernel's name, such as `/dev/vdb1`.
    pub path: String,
    /// `disk`, `part`, `loop`, `lvm`, `crypt`, `raid1`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it cannot be written to.
    #[serde(rename = "ro")]
    pub read_only: bool,
    /// The serial number of a disk.
    pub serial: Option<String>,
    /// The name of a partition in its GPT.
    #[serde(rename = "partlabel")]
    pub part_label: Option<String>,
    /// The number of a partition in its GPT.
    #[serde(rename = "partuuid")]
    pub part_uuid: Option<String>,
    /// Where it is mounted; `[SWAP]` where it is swapped to.
    #[serde(rename = "mountpoints", default)]
    mountpoints: Vec<Option<String>>,
    /// What is made of it: partitions, volumes.
    #[serde(default)]
    pub children: Vec<Self>,
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<BlockDevice>,
}

impl BlockDevice {
    /// Where it is mounted; `[SWAP]` where it is swapped to.
    pub fn mountpoints(&self) -> impl Iterator<Item = &str> {
        self.mountpoints.iter().flatten().map(String::as_str)
    }

    /// It, and everything that is made of it.
    pub fn with_children(&self) -> Vec<&Self> {
        let mut all = vec![self];
        let mut next = 0;
        while let Some(device) = all.get(next).copied() {
            all.extend(&device.children);
            next += 1;
        }
        all
    }
}

fn parse(text: &str) -> Result<Vec<BlockDevice>, String> {
    let listing: Listing = serde_json::from_str(text)
        .map_err(|error| format!("not the JSON of lsblk ({error}): {:?}", shorten(text)))?;
    Ok(listing.blockdevices)
}

impl Zfs {
    /// All block devices, disks at the top.
    pub fn block_devices(&self) -> Result<Vec<BlockDevice>, ZfsError> {
        self.parse(&command("lsblk", ["-b", "-J", "-o", COLUMNS]), parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSBLK: &str = include_str!("samples/lsblk.json");

    #[test]
    fn disks_have_their_partitions_and_mountpoints() {
        let devices = parse(LSBLK).unwrap();
        let root = devices.iter().find(|device| device.path == "/dev/vda").unwrap();
        assert_eq!(root.mountpoints().collect::<Vec<_>>(), ["/"]);
        assert_eq!(root.serial.as_deref(), Some("vmroot"));
        let parted = devices.iter().find(|device| device.children.len() == 3).unwrap();
        assert_eq!((parted.kind.as_str(), parted.read_only), ("disk", false));
        let all = parted.with_children();
        assert_eq!(all.len(), 4);
        assert_eq!(all[3].part_label.as_deref(), Some("snowbank-pool"));
        assert!(all[3].part_uuid.is_some() && all[3].size > 1 << 20);
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        for text in ["", "{}", "[]", "{\"blockdevices\": [{}]}", "{\"blockdevices\": 1}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("{\"blockdevices\": []}"), Ok(Vec::new()));
    }
}
