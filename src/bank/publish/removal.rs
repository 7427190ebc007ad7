//! Taking paths away: first the narinfos, durably, and only then what they name.
//!
//! A crash in between leaves a NAR, a listing or debug information that nobody sees; the next collection finds
//! and removes them ([`Bank::strays`]).

use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{iter, thread};

use super::damaged::{DAMAGED, KEPT};
use super::{for_each_entry, remove, sync_directory};
use crate::bank::{
    Bank, BankError, BuildId, Object, bytes_on_disk, narinfo_file_name, narinfo_name,
};
use crate::nix::nar_url::NarFileName;
use crate::nix::store_path::StorePathHash;

/// How many threads remove files: `unlink` returns when the file system has let go of the blocks, for which some wait
/// for the disk (80 us each, measured on ext4 with `discard`).
const REMOVERS: usize = 8;
/// Fewer files than this are not worth a thread.
const MIN_SHARE: usize = 16;

/// A path that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Which one.
    pub hash: StorePathHash,
    /// The file of its NAR, if no path that stays has the same.
    pub nar: Option<NarFileName>,
    /// Debug information that its NAR holds.
    pub debug_info: Vec<BuildId>,
}

/// What belongs to no path.
#[derive(Debug, Default)]
pub struct Strays {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What they take on disk, in bytes.
    pub bytes: u64,
}

impl Bank {
    /// Removes paths. What is gone already counts as removed; of several errors the first is told, and what can be
    /// removed all the same is. A path whose narinfo stays keeps the rest as well.
    pub fn remove_paths(&self, paths: &[Leaving]) -> Result<(), BankError> {
        let (gone, failure) =
            side_by_side(paths, |path| remove(&self.root().join(narinfo_file_name(path.hash))));
        // Not one NAR goes before it is certain that no crash brings its narinfo back.
        sync_directory(self.root())?;
        let (_, failure_beside) = side_by_side(&gone, |path| self.remove_rest(path));
        failure.or(failure_beside).map_or(Ok(()), Err)
    }

    /// Removes all but the narinfo. Each file is tried, whichever fails.
    fn remove_rest(&self, path: &Leaving) -> Result<(), BankError> {
        let listing = self.root().join(format!("{}.ls", path.hash));
        let nar = path.nar.map(|name| self.root().join("nar").join(name.file_name()));
        let files = [Some(listing), nar].into_iter().flatten().map(|file| remove(&file));
        files.chain(iter::once_with(|| self.remove_debug_info(path))).fold(Ok(()), Result::and)
    }

    /// Of several NARs that hold debug information of one build ID, one is named: what names another one stays.
    fn remove_debug_info(&self, path: &Leaving) -> Result<(), BankError> {
        let Some(nar) = path.nar else { return Ok(()) };
        for id in &path.debug_info {
            let Some((name, _)) = self.open_object(&Object::DebugInfo(id.clone()))? else {
                continue;
            };
            let file = self.root().join(name);
            let text = self.read_small(&file)?.unwrap_or_default();
            if memchr::memmem::find(&text, nar.file_name().as_bytes()).is_some() {
                remove(&file)?;
            }
        }
        Ok(())
    }

    /// The NARs and listings that no narinfo names, as far as `names_nar` and `has_path` know; and what was set aside
    /// long before `now`. Reads names alone.
    pub fn strays(
        &self,
        names_nar: impl Fn(NarFileName) -> bool,
        has_path: impl Fn(StorePathHash) -> bool,
        now: SystemTime,
    ) -> Result<Strays, BankError> {
        let mut strays = Strays::default();
        for_each_entry(&self.root().join("nar"), |file| {
            let name = file.file_name().and_then(|name| NarFileName::parse(name.to_str()?));
            if name.is_some_and(|name| !names_nar(name)) {
                strays.files.push(file);
            }
        })?;
        for_each_entry(self.root(), |file| {
            let is_listing = file.extension().is_some_and(|ending| ending == "ls");
            let narinfo = file.with_extension("narinfo");
            let hash = narinfo.file_name().filter(|_| is_listing).and_then(narinfo_name);
            if hash.is_some_and(|hash| !has_path(hash)) {
                strays.files.push(file);
            }
        })?;
        for_each_entry(&self.root().join(DAMAGED), |file| {
            if is_older(&file, KEPT, now) {
                strays.files.push(file);
            }
        })?;
        strays.bytes = strays.files.iter().map(|file| bytes_on_disk(file)).sum();
        Ok(strays)
    }
}

/// Does `work` for each, a few at once. Says for which it was done, and the first error of the others.
fn side_by_side<'a, T: Sync>(
    items: &'a [T],
    work: impl Fn(&T) -> Result<(), BankError> + Sync,
) -> (Vec<&'a T>, Option<BankError>) {
    let in_turn = |items: &'a [T]| {
        let (mut done, mut failure) = (Vec::with_capacity(items.len()), None);
        for item in items {
            match work(item) {
                Ok(()) => done.push(item),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        (done, failure)
    };
    let share = items.len().div_ceil(REMOVERS).max(MIN_SHARE);
    let (mine, others) = items.split_at(share.min(items.len()));
    thread::scope(|scope| {
        let work = |items| scope.spawn(move || in_turn(items));
        let others: Vec<_> = others.chunks(share).map(work).collect();
        let (mut done, mut failure) = in_turn(mine);
        for other in others {
            let (more, error) = other.join().unwrap_or_else(|panic| resume_unwind(panic));
            done.extend(more);
            failure = failure.or(error);
        }
        (done, failure)
    })
}

/// Whether a file has had its name for longer than `age` at `now`.
pub fn is_older(file: &Path, age: Duration, now: SystemTime) -> bool {
    let named = std::fs::symlink_metadata(file).map(|found| found.ctime()).unwrap_or(i64::MAX);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
    named < i64::try_from(now.as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::cache_info::CacheInfo;
    use crate::nix::hash::Sha256;
    use crate::nix::store_path::StoreDir;

    fn hash(number: u8) -> StorePathHash {
        StorePathHash::from_bytes([number; 20])
    }

    fn nar(number: u8) -> NarFileName {
        NarFileName::zstd(Sha256([number; 32]))
    }

    struct Bed {
        bank: Bank,
        _own: tempfile::TempDir,
    }

    fn bed(numbers: &[u8]) -> Bed {
        let own = tempfile::tempdir().unwrap();
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        let bank = Bank::open(own.path().join("bank"), &info).unwrap();
        for number in numbers {
            let root = bank.root();
            std::fs::write(root.join(narinfo_file_name(hash(*number))), "narinfo").unwrap();
            std::fs::write(root.join(format!("{}.ls", hash(*number))), "{}").unwrap();
            std::fs::write(root.join("nar").join(nar(*number).file_name()), "nar").unwrap();
        }
        Bed { bank, _own: own }
    }

    fn files(bank: &Bank) -> usize {
        let count = |directory: &Path| {
            let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
            entries.filter(|entry| entry.file_type().unwrap().is_file()).count()
        };
        // Without its mark.
        count(bank.root()) + count(&bank.root().join("nar")) - 1
    }

    #[test]
    fn a_path_goes_with_its_listing_and_its_nar_unless_another_has_it_too() {
        let bed = bed(&[1, 2, 3]);
        let leaving = |hash, nar| Leaving { hash, nar, debug_info: Vec::new() };
        let gone = [
            leaving(hash(1), Some(nar(1))),
            leaving(hash(2), None),
            leaving(hash(9), Some(nar(9))),
        ];
        for _ in 0..2 {
            bed.bank.remove_paths(&gone).unwrap();
            assert_eq!(files(&bed.bank), 4);
            assert!(bed.bank.open_nar(nar(2)).unwrap().is_some());
            assert!(bed.bank.read_narinfo(hash(3)).unwrap().is_some());
        }
    }

    #[test]
    fn one_that_cannot_be_removed_does_not_keep_the_others() {
        let bed = bed(&[1, 2]);
        let in_the_way = bed.bank.root().join(narinfo_file_name(hash(1)));
        std::fs::remove_file(&in_the_way).unwrap();
        std::fs::create_dir(&in_the_way).unwrap();
        let gone = [1, 2].map(|number| Leaving {
            hash: hash(number),
            nar: Some(nar(number)),
            debug_info: Vec::new(),
        });
        let error = bed.bank.remove_paths(&gone).unwrap_err().to_string();
        assert!(error.contains(&hash(1).to_string()), "{error}");
        assert!(bed.bank.open_nar(nar(1)).unwrap().is_some(), "its narinfo is still there");
        assert!(bed.bank.open_nar(nar(2)).unwrap().is_none());
        assert!(bed.bank.read_narinfo(hash(2)).unwrap().is_none());
    }

    #[test]
    fn what_no_path_names_is_found_and_nothing_else() {
        let bed = bed(&[1, 2]);
        let root = bed.bank.root();
        std::fs::write(root.join("nar/README"), "mine").unwrap();
        std::fs::write(root.join("other.ls"), "mine").unwrap();
        let is_one = |found: bool| move |_| found;
        let now = SystemTime::now();
        assert!(bed.bank.strays(is_one(true), |_| true, now).unwrap().files.is_empty());
        let strays = bed.bank.strays(|name| name == nar(1), |path| path == hash(2), now).unwrap();
        let mut names = strays.files.clone();
        names.sort_unstable();
        let listing = root.join(format!("{}.ls", hash(1)));
        assert_eq!(names, [listing, root.join("nar").join(nar(2).file_name())]);
        assert!(strays.bytes > 0);
    }

    #[test]
    fn what_was_set_aside_goes_a_month_later() {
        let bed = bed(&[1, 2]);
        bed.bank.set_aside(nar(1)).unwrap();
        bed.bank.set_aside_narinfo(hash(1)).unwrap();
        assert!(bed.bank.open_nar(nar(1)).unwrap().is_none());
        assert!(bed.bank.read_narinfo(hash(1)).unwrap().is_none());
        let found = |after| {
            let strays = bed.bank.strays(|_| true, |_| true, SystemTime::now() + after).unwrap();
            let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
            let mut names: Vec<String> = strays.files.iter().map(name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(found(KEPT - Duration::from_secs(60)), [""; 0]);
        let mut both = [nar(1).file_name(), narinfo_file_name(hash(1))];
        both.sort_unstable();
        assert_eq!(found(KEPT + Duration::from_secs(60)), both);
    }

    #[test]
    fn many_are_removed_side_by_side_and_each_error_leaves_the_others_be() {
        let numbers: Vec<u8> = (0..200).collect();
        let in_turn = side_by_side(&numbers, |_| Ok(()));
        assert_eq!(in_turn.0, numbers.iter().collect::<Vec<_>>());
        assert!(in_turn.1.is_none());
        let (done, failure) = side_by_side(&numbers, |number| match number % 50 {
            7 => Err(BankError::Away(number.to_string().into())),
            _ => Ok(()),
        });
        assert_eq!(done.len(), 196);
        assert!(matches!(failure, Some(BankError::Away(first)) if first == Path::new("7")));
        assert!(side_by_side(&[] as &[u8], |_| Ok(())).0.is_empty());
    }
}
