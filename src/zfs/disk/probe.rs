//! What is on a device, as `blkid` and `wipefs` recognise it.

use std::fs::File;
use std::ops::Range;

use serde::Deserialize;

use super::super::error::ZfsError;
use super::super::handle::Zfs;
use super::super::text::shorten;
use super::command;

/// What `blkid -p` ends with where it recognises nothing. It ends so, too, and says nothing, where
/// there is no such device or it cannot be read.
const NOTHING: i32 = 2;
/// What `blkid -p` ends with where it recognises several things that cannot be at once.
const AMBIVALENT: i32 = 8;

/// Something that is recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `ext4`, `vfat`, `zfs_member`, `LVM2_member`, `gpt`, `dos`, …
    pub kind: String,
    /// The label of a file system, or the name of a pool.
    pub label: Option<String>,
    /// The UUID of a file system, or the guid of a pool.
    pub uuid: Option<String>,
}

impl Zfs {
    /// What `blkid` recognises on `device`, or on the bytes `region` of it. Reads the device, not
    /// udev's memory. Empty is: read, and nothing recognised.
    pub fn probe(&self, device: &str, region: Option<&Range<u64>>) -> Result<Vec<Found>, ZfsError> {
        let region = region.map_or_else(Vec::new, |region| {
            let size = region.end.saturating_sub(region.start);
            vec!["-O".to_owned(), region.start.to_string(), "-S".to_owned(), size.to_string()]
        });
        let command = command("blkid", ["-p", "-o", "export"]).args(region).arg(device);
        match self.read(&command) {
            Ok(text) => Ok(parse_blkid(&text)),
            Err(ZfsError::Failed { code: Some(NOTHING), .. }) => match File::open(device) {
                Ok(_) => Ok(Vec::new()),
                Err(source) => Err(ZfsError::Io { command: command.to_string(), source }),
            },
            Err(ZfsError::Failed { code: Some(AMBIVALENT), .. }) => {
                let kind = "several things that contradict each other".into();
                Ok(vec![Found { kind, ..Found::default() }])
            }
            Err(error) => Err(error),
        }
    }

    /// What `wipefs` would erase from `device`. It knows some signatures that `blkid` passes over,
    /// such as those of a partition table whose other half is gone.
    pub fn signatures(&self, device: &str) -> Result<Vec<Found>, ZfsError> {
        self.parse(&command("wipefs", ["--no-act", "--json", device]), parse_wipefs)
    }
}

/// Reads `NAME=value` lines. A partition has some about itself, which say nothing of its content.
fn parse_blkid(text: &str) -> Vec<Found> {
    let get = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(unescape(value))
    };
    let file_system =
        get("TYPE").map(|kind| Found { kind, label: get("LABEL"), uuid: get("UUID") });
    // A FAT boot sector looks like a table, too.
    let table = get("PTTYPE").filter(|_| file_system.is_none());
    let table = table.map(|kind| Found { kind, label: None, uuid: get("PTUUID") });
    file_system.into_iter().chain(table).collect()
}

/// `blkid -o export` writes a backslash before what a shell would interpret.
fn unescape(value: &str) -> String {
    let mut characters = value.chars();
    let mut plain = String::with_capacity(value.len());
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

fn parse_wipefs(text: &str) -> Result<Vec<Found>, String> {
    #[derive(Deserialize)]
    struct Listing {
        #[serde(default)]
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        #[serde(rename = "type")]
        kind: String,
        label: Option<String>,
        uuid: Option<String>,
    }
    // Older versions print nothing at all where there is nothing.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_str(text)
        .map_err(|error| format!("not the JSON of wipefs ({error}): {:?}", shorten(text)))?;
    let mut found: Vec<Found> = Vec::new();
    for Signature { kind, label, uuid } in listing.signatures {
        let one = Found { kind, label, uuid };
        // A pool has four labels on each device.
        if !found.contains(&one) {
            found.push(one);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Fake;
    use super::*;

    fn found(kind: &str, label: Option<&str>, uuid: Option<&str>) -> Found {
        Found { kind: kind.into(), label: label.map(Into::into), uuid: uuid.map(Into::into) }
    }

    #[test]
    fn a_member_of_a_pool_names_the_pool() {
        let text = include_str!("samples/blkid-member.out");
        let uuid = "13146220798980791108";
        assert_eq!(parse_blkid(text), [found("zfs_member", Some("nixcache"), Some(uuid))]);
    }

    #[test]
    fn a_partition_with_nothing_in_it_is_blank() {
        assert_eq!(parse_blkid(include_str!("samples/blkid-blank-partition.out")), []);
        let table = include_str!("samples/blkid-table.out");
        let uuid = "0c2121c4-c07d-48ee-8211-208c274a73b1";
        assert_eq!(parse_blkid(table), [found("gpt", None, Some(uuid))]);
    }

    #[test]
    fn a_label_is_read_as_it_is_on_the_disk() {
        let text = "DEVNAME=/dev/vdb\nLABEL=my\\ data\\=\\\\\nTYPE=ext4\n";
        assert_eq!(parse_blkid(text), [found("ext4", Some("my data=\\"), None)]);
    }

    #[test]
    fn four_labels_of_a_pool_are_one_signature_and_none_is_none() {
        let text = include_str!("samples/wipefs-member.json");
        let uuid = "13146220798980791108";
        assert_eq!(
            parse_wipefs(text).unwrap(),
            [found("zfs_member", Some("nixcache"), Some(uuid))]
        );
        assert_eq!(parse_wipefs("{\n   \"signatures\": [\n\n   ]\n}\n").unwrap(), []);
        assert_eq!(parse_wipefs("").unwrap(), []);
        assert!(parse_wipefs("{\"signatures\": 1}").is_err());
    }

    #[test]
    fn only_a_device_that_is_there_is_blank() {
        for (device, script, blank) in [
            ("/dev/null", "exit 2", Some(true)),
            ("/nonexistent/vdx", "exit 2", None),
            ("/dev/null", "exit 8", Some(false)),
            ("/dev/null", "exit 4", None),
            ("/dev/null", "exit 1", None),
        ] {
            let fake = Fake::new("exit 1");
            let zfs = fake.zfs.with_program("blkid", fake.install("blkid", script));
            let probed = zfs.probe(device, None).ok().map(|found| found.is_empty());
            assert_eq!(probed, blank, "{device} {script}");
        }
    }

    #[test]
    fn a_region_is_asked_for_in_bytes() {
        let fake = Fake::new("exit 1");
        let script = "echo \"LABEL=$*\"; echo TYPE=x";
        let zfs = fake.zfs.with_program("blkid", fake.install("blkid", script));
        let probed = zfs.probe("/dev/vdb", Some(&(1048576..3145728))).unwrap();
        let asked = "-p -o export -O 1048576 -S 2097152 /dev/vdb";
        assert_eq!(probed[0].label.as_deref(), Some(asked));
    }
}
