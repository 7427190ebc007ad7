//! What is not what it should be is taken out of the way, into `damaged/`, where it can be looked at.
//!
//! Of it the latest thousand files are kept, and of these the latest 16 GiB; the collector removes what has lain there
//! for [`KEPT`].

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{entries, io_error, make_push_directories, remove, sync_directory, system};
use crate::bank::{Bank, BankError, blocks_of, narinfo_file_name};
use crate::nix::nar_url::NarFileName;
use crate::nix::store_path::StorePathHash;

/// Where it lies, in the bank.
pub(super) const DAMAGED: &str = "damaged";
/// How many files are kept at most.
const MOST_FILES: usize = 1000;
/// How much they take at most, in bytes on disk; the latest is kept in any case.
const MOST_BYTES: u64 = 16 << 30;
/// How long they are kept at most.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

impl Bank {
    /// Takes a NAR that is not what it should be out of the way, and keeps it for inspection.
    pub fn set_aside(&self, name: NarFileName) -> Result<(), BankError> {
        self.move_aside(&self.root().join("nar"), &name.file_name())
    }

    /// Does the same with a narinfo.
    pub fn set_aside_narinfo(&self, hash: StorePathHash) -> Result<(), BankError> {
        self.move_aside(self.root(), &narinfo_file_name(hash))
    }

    fn move_aside(&self, directory: &Path, name: &str) -> Result<(), BankError> {
        make_push_directories(self.root())?;
        let damaged = self.root().join(DAMAGED);
        let from = directory.join(name);
        match system::rename_over(&from, &damaged.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(io_error(&from))?,
        }
        sync_directory(&damaged)?;
        sync_directory(directory)?;
        too_many(&damaged, MOST_FILES, MOST_BYTES)?.iter().try_for_each(|file| remove(file))
    }
}

/// The files of a directory, of which the latest stay within both bounds without them.
fn too_many(directory: &Path, files: usize, bytes: u64) -> Result<Vec<PathBuf>, BankError> {
    let mut found = Vec::new();
    for file in entries(directory)? {
        // Gone meanwhile, or not ours to judge.
        let Ok(metadata) = std::fs::symlink_metadata(&file) else { continue };
        if metadata.is_file() {
            // Renamed into it, so since then.
            let since = (metadata.ctime(), metadata.ctime_nsec());
            found.push((since, blocks_of(&metadata), file));
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    let mut taken = 0;
    let stays = found.iter().enumerate().take_while(|(index, (_, size, _))| {
        taken += size;
        *index == 0 || (*index < files && taken <= bytes)
    });
    let stays = stays.count();
    Ok(found.into_iter().skip(stays).map(|(_, _, file)| file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_as_many_and_as_large_as_may_be_and_one_in_any_case() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["d", "b", "c", "a"];
        let sizes: Vec<u64> = names
            .iter()
            .map(|name| {
                let file = directory.path().join(name);
                let before = std::fs::metadata(directory.path()).unwrap();
                // The clock of a file system moves in steps.
                loop {
                    std::fs::write(&file, vec![1; 5000]).unwrap();
                    let now = std::fs::metadata(&file).unwrap();
                    let is_later = |before: &std::fs::Metadata| {
                        (now.ctime(), now.ctime_nsec()) > (before.ctime(), before.ctime_nsec())
                    };
                    if is_later(&before) {
                        break blocks_of(&now);
                    }
                }
            })
            .collect();
        let goes = |files, bytes| {
            let gone = too_many(directory.path(), files, bytes).unwrap();
            gone.iter().map(|file| file.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(goes(9, u64::MAX), [""; 0]);
        assert_eq!(goes(2, u64::MAX), ["b", "d"]);
        assert_eq!(goes(9, sizes[3] + sizes[2]), ["b", "d"]);
        assert_eq!(goes(9, sizes[3] + sizes[2] - 1), ["c", "b", "d"]);
        assert_eq!(goes(0, 0), ["c", "b", "d"]);
    }
}
