//! What snapshots keep of what would go: its bytes return only when these are destroyed as well.

use std::path::{Path, PathBuf};

/// A snapshot of the bank, as far as it concerns what can be freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Its name, without the dataset's.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub creation: u64,
    /// How many holds keep it from being destroyed.
    pub holds: u64,
    /// The clones that do, as ZFS names them.
    pub clones: Option<String>,
    /// What it keeps of what would go, in bytes.
    pub bytes: u64,
    directory: PathBuf,
}

impl Keeping {
    /// A snapshot whose files are in `directory`.
    pub fn new(
        name: String,
        creation: u64,
        (holds, clones): (u64, Option<String>),
        directory: PathBuf,
    ) -> Self {
        Self { name, creation, holds, clones, bytes: 0, directory }
    }

    fn has(&self, file: &Path) -> bool {
        self.directory.join(file).symlink_metadata().is_ok()
    }
}

/// Counts for each of the snapshots, which are oldest first, what it keeps of the files that would go: their names
/// in the bank and the bytes that go with them. Says how many bytes are kept by any. Blocks.
///
/// A file is never changed, so it is in all snapshots since it came: the newest tells whether any has it, and the
/// oldest of them is found by halving.
pub fn count(snapshots: &mut [Keeping], going: impl IntoIterator<Item = (PathBuf, u64)>) -> u64 {
    let mut kept = 0;
    for (file, bytes) in going {
        if !snapshots.last().is_some_and(|newest| newest.has(&file)) {
            continue;
        }
        kept += bytes;
        let oldest = snapshots.partition_point(|snapshot| !snapshot.has(&file));
        for snapshot in &mut snapshots[oldest..] {
            snapshot.bytes += bytes;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_keeps_what_it_has_and_the_newest_tells_whether_any_does() {
        let own = tempfile::tempdir().unwrap();
        let has: [&[&str]; 3] = [&["a", "gone"], &["a", "b"], &["a", "b", "c"]];
        let mut snapshots: Vec<_> = (0_u64..)
            .zip(has)
            .map(|(creation, files)| {
                let directory = own.path().join(creation.to_string());
                std::fs::create_dir(&directory).unwrap();
                for file in files {
                    std::fs::write(directory.join(file), "").unwrap();
                }
                Keeping::new(creation.to_string(), creation, (0, None), directory)
            })
            .collect();
        let going = [("a", 1), ("b", 10), ("c", 100), ("new", 1000), ("gone", 10_000)];
        let kept = count(&mut snapshots, going.map(|(file, bytes)| (file.into(), bytes)));
        assert_eq!(kept, 111);
        let bytes: Vec<u64> = snapshots.iter().map(|snapshot| snapshot.bytes).collect();
        assert_eq!(bytes, [1, 11, 111]);
        assert_eq!(count(&mut [], [("a".into(), 1)]), 0);
    }
}
