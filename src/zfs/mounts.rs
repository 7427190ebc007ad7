//! What is mounted where, from `/proc/self/mountinfo`: it answers when ZFS does not.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::name::DatasetName;

/// The table of this process: a service may see other mounts than its administrator.
const TABLE: &str = "/proc/self/mountinfo";

/// All mounts, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique while it is mounted.
    pub id: u32,
    /// The directory that it is mounted at.
    pub point: PathBuf,
    /// The part of the file system that is seen there: `/` but for a bind mount.
    pub root: PathBuf,
    /// Such as `zfs` or `ext4`.
    pub file_system: String,
    /// A device; for ZFS the name of the dataset.
    pub source: String,
    /// Nothing may be written through it, or into the file system at all.
    pub readonly: bool,
}

impl Mount {
    /// The dataset that is mounted, if it is one.
    pub fn dataset(&self) -> Option<DatasetName> {
        (self.file_system == "zfs").then(|| DatasetName::parse(&self.source).ok())?
    }

    /// Reads a line as proc(5) describes it:
    /// `36 35 98:0 /root /point options shared:1 - ext4 /dev/sda1 options`.
    fn parse(line: &[u8]) -> Option<Self> {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        // As many optional fields as there are stand before the lone dash.
        let dash = 6 + words.get(6..)?.iter().position(|word| *word == b"-")?;
        let [id, _, _, root, point, options] = words.get(..6)? else { return None };
        let [file_system, source, super_options] = words.get(dash + 1..dash + 4)? else {
            return None;
        };
        let readonly =
            |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
        Some(Self {
            id: str::from_utf8(id).ok()?.parse().ok()?,
            point: path(point),
            root: path(root),
            file_system: String::from_utf8_lossy(file_system).into_owned(),
            source: String::from_utf8_lossy(&unescape(source)).into_owned(),
            readonly: readonly(options) || readonly(super_options),
        })
    }
}

impl Mounts {
    /// Reads the table.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read(TABLE)?))
    }

    /// Reads the text of the table; a line that is none is left out.
    pub fn parse(table: &[u8]) -> Self {
        Self(table.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// What is mounted exactly at `path`, which must be absolute and without symbolic links: the
    /// last mount there hides those before it.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.0.iter().rfind(|mount| mount.point == path)
    }

    /// The mount that `path` lies in, which must be absolute and without symbolic links.
    pub fn covering(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|directory| self.at(directory))
    }

    /// Every mount.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }
}

fn path(escaped: &[u8]) -> PathBuf {
    std::ffi::OsString::from_vec(unescape(escaped)).into()
}

/// The kernel writes space, tab, line break and backslash as `\040`, `\011`, `\012` and `\134`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) =
            (first, after)
        {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        30 22 0:25 / /store rw,noatime shared:9 - zfs tank/store rw,xattr,posixacl\n\
        31 22 0:26 / /a\\040b\\134c ro,noatime shared:10 master:2 - zfs tank/other\\040one rw\n\
        32 30 0:27 / /store/received rw - zfs tank/from-b ro\n\
        33 22 0:28 /sub /bind rw - zfs tank/store rw\n\
        34 22 0:29 / /store rw - tmpfs tmpfs rw\n\
        35 22 0:30 broken\n\n";

    #[test]
    fn the_file_system_of_a_path_is_the_last_one_mounted_above_it() {
        let mounts = Mounts::parse(SAMPLE);
        assert_eq!(mounts.iter().count(), 6);
        let name = |path: &str| mounts.covering(Path::new(path)).unwrap().source.clone();
        assert_eq!(name("/etc/passwd"), "/dev/vda");
        assert_eq!(name("/store/received/nar/x"), "tank/from-b");
        assert_eq!(name("/storey"), "/dev/vda");
        let hidden = mounts.at(Path::new("/store")).unwrap();
        assert_eq!((hidden.file_system.as_str(), hidden.dataset()), ("tmpfs", None));
        assert_eq!(mounts.at(Path::new("/store/nar")), None);
    }

    #[test]
    fn escapes_read_only_mounts_and_binds_are_read() {
        let mounts = Mounts::parse(SAMPLE);
        let odd = mounts.at(Path::new("/a b\\c")).unwrap();
        assert_eq!((odd.id, odd.source.as_str(), odd.readonly), (31, "tank/other one", true));
        // Its name has a space, so it is none of ours.
        assert_eq!(odd.dataset(), None);
        let received = mounts.at(Path::new("/store/received")).unwrap();
        assert!(received.readonly);
        assert_eq!(received.dataset().unwrap().as_str(), "tank/from-b");
        assert_eq!(mounts.at(Path::new("/bind")).unwrap().root, Path::new("/sub"));
    }

    #[test]
    fn the_table_of_this_machine_is_read() {
        let mounts = Mounts::read().unwrap();
        assert!(
            mounts
                .covering(Path::new("/proc/self"))
                .is_some_and(|mount| mount.file_system == "proc")
        );
    }

    proptest! {
        #[test]
        fn no_table_makes_a_panic(table in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mounts::parse(&table);
        }

        #[test]
        fn an_escaped_path_is_read_back(plain in proptest::collection::vec(1u8.., 0..40)) {
            let escape = |byte: &u8| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                _ => vec![*byte],
            };
            let escaped: Vec<u8> = plain.iter().flat_map(escape).collect();
            prop_assert_eq!(unescape(&escaped), plain);
        }
    }
}
