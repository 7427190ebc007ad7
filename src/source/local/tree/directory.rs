//! The names in a directory, in the order of a NAR.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// All names in a directory, sorted by their bytes. They lie in one allocation: a tree has many
/// directories, and a directory may have many names.
pub(super) struct Names {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    start: usize,
    length: usize,
    kind: FileType,
}

/// Room for about five hundred entries a call.
const BUFFER: usize = 16 << 10;

impl Names {
    /// Reads them; `None` if there are more than `most`. `buffer` is room to work in, kept by the
    /// caller for the next directory.
    pub(super) fn read(
        directory: &OwnedFd,
        most: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Self>, Errno> {
        buffer.clear();
        buffer.reserve(BUFFER);
        let mut names = Self { bytes: Vec::new(), entries: Vec::new() };
        let mut reader = RawDir::new(directory.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = reader.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if names.entries.len() as u64 >= most {
                return Ok(None);
            }
            let (start, length, kind) = (names.bytes.len(), name.len(), entry.file_type());
            names.entries.push(Entry { start, length, kind });
            names.bytes.extend_from_slice(name);
        }
        let bytes = &names.bytes;
        let name = |entry: &Entry| &bytes[entry.start..entry.start + entry.length];
        names.entries.sort_unstable_by(|left, right| name(left).cmp(name(right)));
        Ok(Some(names))
    }

    /// The name at `index`, and what the directory says that it is. Not every file system says.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], FileType)> {
        let entry = self.entries.get(index)?;
        Some((&self.bytes[entry.start..entry.start + entry.length], entry.kind))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.entries.len()).filter_map(|index| self.get(index).map(|(name, _)| name))
    }
}
