//! Partition tables, with `sfdisk`. Only GPT: its partitions have names.

use serde::Deserialize;

use super::super::command::Command;
use super::super::error::ZfsError;
use super::super::handle::Zfs;
use super::super::text::shorten;
use super::command;

/// The type of the EFI system partition (UEFI specification, 5.3.3).
pub const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// The type of a partition with a Linux file system.
pub const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
/// The type that OpenZFS gives to its partitions.
pub const ZFS: &str = "6A898CC3-1DD2-11B2-99A6-080020736631";

const MIB: u64 = 1 << 20;

/// A table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `gpt`, `dos`, …
    pub kind: String,
    /// The end of the space that the table gives away, in bytes.
    pub end: u64,
    /// Its partitions by number.
    pub partitions: Vec<Partition>,
}

/// A partition that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The kernel's name, such as `/dev/vdb1`.
    pub node: String,
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its own number, in lower case as in `/dev/disk/by-partuuid`; a table that is no GPT has none.
    pub uuid: String,
    /// Its name in the GPT; empty if it has none.
    pub label: String,
}

/// A partition to be made. Start and size are multiples of 1 MiB, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// One of [`ESP`], [`LINUX`] and [`ZFS`].
    pub kind: &'static str,
    /// Its own number, a UUID.
    pub uuid: String,
    /// Its name: ASCII without quotes, at most 36 characters.
    pub label: String,
}

impl Zfs {
    /// The partition table of a disk that has one.
    pub fn partition_table(&self, disk: &str) -> Result<Table, ZfsError> {
        self.parse(&command("sfdisk", ["--json", disk]), parse)
    }
}

fn parse(text: &str) -> Result<Table, String> {
    #[derive(Deserialize)]
    struct Whole {
        partitiontable: RawTable,
    }
    #[derive(Deserialize)]
    struct RawTable {
        label: String,
        device: String,
        unit: String,
        lastlba: Option<u64>,
        sectorsize: u64,
        #[serde(default)]
        partitions: Vec<RawPartition>,
    }
    #[derive(Deserialize)]
    struct RawPartition {
        node: String,
        start: u64,
        size: u64,
        #[serde(default)]
        uuid: String,
        #[serde(default)]
        name: String,
    }
    let Whole { partitiontable: table } = serde_json::from_str(text)
        .map_err(|error| format!("not the JSON of sfdisk ({error}): {:?}", shorten(text)))?;
    let bytes = |sectors: u64| {
        sectors.checked_mul(table.sectorsize).ok_or_else(|| format!("{sectors} sectors"))
    };
    if table.unit != "sectors" {
        return Err(format!("sizes in {:?}", shorten(&table.unit)));
    }
    let mut partitions = Vec::new();
    for one in table.partitions {
        let number = one.node.strip_prefix(&table.device);
        let number = number.and_then(|rest| rest.trim_start_matches('p').parse().ok());
        partitions.push(Partition {
            number: number.ok_or_else(|| {
                format!("{:?} is not a partition of {:?}", shorten(&one.node), table.device)
            })?,
            node: one.node,
            start: bytes(one.start)?,
            size: bytes(one.size)?,
            uuid: one.uuid.to_ascii_lowercase(),
            label: one.name,
        });
    }
    let end = bytes(table.lastlba.map_or(0, |last| last + 1))?;
    Ok(Table { kind: table.label, end, partitions })
}

/// A new table with these partitions, on a disk that nobody uses. The kernel is not told: while udev
/// looks at the disk it would not listen.
pub fn create(disk: &str, partitions: &[NewPartition]) -> Command {
    let script = format!("label: gpt\n{}", script(partitions));
    // What is on the disk was looked at before, and is erased by nobody but us.
    command("sfdisk", ["--quiet", "--no-reread", "--wipe", "never", "--wipe-partitions", "never"])
        .arg(disk)
        .input(script)
        .change()
}

/// More partitions on a disk that others of are in use. The kernel is not told.
pub fn append(disk: &str, partitions: &[NewPartition]) -> Command {
    let options = ["--quiet", "--append", "--no-reread", "--wipe", "never"];
    command("sfdisk", options)
        .args(["--wipe-partitions", "never", disk])
        .input(script(partitions))
        .change()
}

/// Moves the copy of the table at the end of a disk that has become larger to where the end is now.
pub fn move_copy_to_end(disk: &str) -> Command {
    command("sfdisk", ["--quiet", "--no-reread", "--relocate", "gpt-bak-std", disk]).change()
}

/// Gives a partition another name.
pub fn set_label(disk: &str, number: u32, label: &str) -> Command {
    command("sfdisk", ["--quiet", "--no-reread", "--part-label", disk])
        .args([number.to_string(), label.to_owned()])
        .change()
}

/// Has the kernel take up the table of a disk, and leave what it has already as it is.
pub fn announce(disk: &str) -> Command {
    command("partx", ["--update", disk]).change()
}

fn script(partitions: &[NewPartition]) -> String {
    let line = |one: &NewPartition| {
        format!(
            "{}: start={}MiB, size={}MiB, type={}, uuid={}, name=\"{}\"\n",
            one.number,
            one.start / MIB,
            one.size / MIB,
            one.kind,
            one.uuid,
            one.label
        )
    };
    partitions.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_in_bytes() {
        let table = parse(include_str!("samples/sfdisk.json")).unwrap();
        assert_eq!((table.kind.as_str(), table.end), ("gpt", 4_194_271 * 512));
        let labels: Vec<_> = table.partitions.iter().map(|one| one.label.as_str()).collect();
        assert_eq!(labels, ["snowbank-esp.new", "snowbank-root.new"]);
        let root = &table.partitions[1];
        assert_eq!((root.number, root.start, root.size), (2, 65 << 20, 500 << 20));
        assert_eq!(root.uuid, "11111111-1111-4111-8111-111111111111");
    }

    #[test]
    fn numbers_are_read_whatever_the_kernel_puts_before_them() {
        for (disk, node) in [("/dev/nvme1n1", "/dev/nvme1n1p12"), ("/dev/sda", "/dev/sda12")] {
            let text = format!(
                r#"{{"partitiontable": {{"label": "dos", "device": "{disk}", "unit": "sectors",
                    "sectorsize": 4096, "partitions": [{{"node": "{node}", "start": 256, "size": 2}}]}}}}"#
            );
            let table = parse(&text).unwrap();
            assert_eq!((table.partitions[0].number, table.partitions[0].start), (12, 1 << 20));
            assert_eq!((table.partitions[0].label.as_str(), table.end), ("", 0));
        }
    }

    #[test]
    fn what_is_no_table_is_an_error() {
        let other = r#"{"partitiontable": {"label": "gpt", "device": "/dev/a", "unit": "bytes",
                        "sectorsize": 512}}"#;
        for text in ["", "{}", other] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn commands_are_shown_with_their_scripts() {
        let partition = NewPartition {
            number: 3,
            start: 1 << 20,
            size: 512 << 20,
            kind: ESP,
            uuid: "u".into(),
            label: "snowbank-esp.new".into(),
        };
        assert_eq!(
            create("/dev/vdb", std::slice::from_ref(&partition)).script(),
            "sfdisk --quiet --no-reread --wipe never --wipe-partitions never /dev/vdb <<'END'\n\
             label: gpt\n\
             3: start=1MiB, size=512MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=u, \
             name=\"snowbank-esp.new\"\nEND"
        );
        let shown = append("/dev/vdb", &[partition]).script();
        assert!(shown.contains(" --append --no-reread ") && !shown.contains("label:"), "{shown}");
        assert_eq!(
            set_label("/dev/vdb", 2, "snowbank-root").to_string(),
            "sfdisk --quiet --no-reread --part-label /dev/vdb 2 snowbank-root"
        );
    }
}
