//! Which path a NAR of a bank is of, by its NarHash and by the name of its file: read from the narinfos in
//! the background, because the names alone do not tell.
//!
//! Of a path it takes 48 bytes, and some 15 to find it. Of the hashes of NARs the first 8 bytes are kept. Nobody can
//! make a NAR that begins as the hash of somebody else's does; whoever makes two that begin alike has only one
//! of them found here.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::index::path_set::PathSet;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;

/// What the narinfos say that were read.
#[derive(Default)]
pub(super) struct Names {
    /// In no order.
    read: Vec<Read>,
    by_path: HashTable<u32>,
    by_nar: HashTable<Name>,
    hasher: RandomState,
    /// Paths whose narinfo says nothing.
    unreadable: HashSet<StorePathHash>,
    /// Of the files of all that were read, as far as their narinfos say it.
    bytes: u64,
    /// Paths that the last scan did not find, because they came after it, or while it ran.
    came_since: HashSet<StorePathHash>,
}

/// The first bytes of a NAR's hash.
type Beginning = [u8; 8];

/// What a narinfo says.
#[derive(Clone, Copy)]
struct Read {
    path: StorePathHash,
    nar: Beginning,
    /// As its file is called.
    file: Beginning,
    /// What it promises of its file, in bytes; `u64::MAX` if it does not.
    size: u64,
}

impl Read {
    /// The bytes of its file, where it says how many.
    const fn bytes(&self) -> u64 {
        if self.size == u64::MAX { 0 } else { self.size }
    }
}

/// One of the two names of a path's NAR.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Nar(u32),
    File(u32),
}

impl Name {
    const fn index(self) -> u32 {
        match self {
            Self::Nar(index) | Self::File(index) => index,
        }
    }

    fn of(self, read: &[Read]) -> &Beginning {
        match self {
            Self::Nar(index) => &read[index as usize].nar,
            Self::File(index) => &read[index as usize].file,
        }
    }
}

impl Names {
    /// Notes that a scan begins, which finds whatever is here by now.
    pub(super) fn scan_begins(&mut self) {
        self.came_since = HashSet::new();
    }

    /// Takes what a narinfo says, whose NAR has this name, and whose path is among those that the last scan found or
    /// came since.
    pub(super) fn learn(&mut self, narinfo: &NarInfo, name: NarFileName, scanned: &PathSet) {
        let path = narinfo.info.path.hash();
        if !scanned.contains(path) {
            self.came_since.insert(path);
        }
        let said = Read {
            path,
            nar: beginning(narinfo.info.nar_hash),
            file: beginning(name.hash),
            size: narinfo.file_size.unwrap_or(u64::MAX),
        };
        self.unreadable.remove(&said.path);
        self.add(said);
    }

    fn add(&mut self, said: Read) {
        self.bytes = self.bytes.saturating_add(said.bytes());
        let Self { read, by_path, hasher, .. } = self;
        let hash = hasher.hash_one(said.path);
        if let Some(index) = by_path.find(hash, |index| read[*index as usize].path == said.path) {
            let index = *index;
            self.let_go(Name::Nar(index));
            self.let_go(Name::File(index));
            let before = std::mem::replace(&mut self.read[index as usize], said);
            self.bytes = self.bytes.saturating_sub(before.bytes());
            self.name_both(index);
        // A bank holds no more than four billion paths.
        } else if let Ok(index) = u32::try_from(read.len()) {
            read.push(said);
            self.enter(index);
        }
    }

    /// Has a path that is new be found.
    fn enter(&mut self, index: u32) {
        let Self { read, by_path, hasher, .. } = self;
        let hash_of = |index: &u32| hasher.hash_one(read[*index as usize].path);
        by_path.insert_unique(hash_of(&index), index, hash_of);
        self.name_both(index);
    }

    fn name_both(&mut self, index: u32) {
        let Read { nar, file, .. } = self.read[index as usize];
        self.name(Name::Nar(index));
        if file != nar {
            self.name(Name::File(index));
        }
    }

    /// Has a name lead to this path, and no more to another.
    fn name(&mut self, name: Name) {
        let Self { read, by_nar, hasher, .. } = self;
        let wanted = *name.of(read);
        let hash = hasher.hash_one(wanted);
        match by_nar.find_mut(hash, |other| *other.of(read) == wanted) {
            Some(other) => *other = name,
            None => {
                by_nar.insert_unique(hash, name, |name| hasher.hash_one(name.of(read)));
            }
        }
    }

    fn let_go(&mut self, name: Name) {
        let Self { read, by_nar, hasher, .. } = self;
        let hash = hasher.hash_one(name.of(read));
        if let Ok(found) = by_nar.find_entry(hash, |other| *other == name) {
            found.remove();
        }
    }

    fn find(&self, nar: Sha256) -> Option<&Read> {
        let wanted = beginning(nar);
        let hash = self.hasher.hash_one(wanted);
        let name = self.by_nar.find(hash, |name| *name.of(&self.read) == wanted)?;
        self.read.get(name.index() as usize)
    }

    fn has_read(&self, path: StorePathHash) -> bool {
        let hash = self.hasher.hash_one(path);
        self.by_path.find(hash, |index| self.read[*index as usize].path == path).is_some()
            || self.unreadable.contains(&path)
    }

    /// The path that has a NAR of this NarHash, or in a file of this name; one where several have it.
    pub(super) fn path_of(&self, nar: Sha256) -> Option<StorePathHash> {
        self.find(nar).map(|read| read.path)
    }

    /// The size that the narinfo of a file promises, in bytes.
    pub(super) fn promised(&self, name: NarFileName) -> Option<u64> {
        let read = self.find(name.hash).filter(|read| read.file == beginning(name.hash))?;
        (read.size != u64::MAX).then_some(read.size)
    }

    /// Those of the paths that have not been read.
    pub(super) fn unread<'a>(
        &'a self,
        paths: &'a [StorePathHash],
    ) -> impl Iterator<Item = StorePathHash> + 'a {
        paths.iter().copied().filter(|hash| !self.has_read(*hash))
    }

    /// Notes that these were read, and that there was nothing to learn.
    pub(super) fn were_unreadable(&mut self, paths: Vec<StorePathHash>) {
        // Of one that somebody else has read meanwhile there was.
        let unreadable: Vec<_> = paths.into_iter().filter(|hash| !self.has_read(*hash)).collect();
        self.unreadable.extend(unreadable);
    }

    /// The bytes of the files of all that were read; one that several paths have counts for each.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many paths were read.
    pub(super) fn len(&self) -> usize {
        self.read.len() + self.unreadable.len()
    }

    /// Forgets what is not among `paths` and did not come since either, of a few of those that were read: those before `before`, or the last ones.
    /// Says before which to look next; `None` when that was all.
    pub(super) fn forget_gone(
        &mut self,
        paths: &PathSet,
        before: Option<usize>,
        few: usize,
    ) -> Option<usize> {
        if before.is_none() {
            self.unreadable.retain(|hash| paths.contains(*hash));
        }
        let end = before.map_or(self.read.len(), |before| before.min(self.read.len()));
        let start = end.saturating_sub(few);
        // From the end: what takes the place of one that goes was looked at already, or has just come.
        for index in (start..end).rev() {
            let path = self.read[index].path;
            if !paths.contains(path) && !self.came_since.contains(&path) {
                self.remove(index);
            }
        }
        (start > 0).then_some(start)
    }

    fn remove(&mut self, index: usize) {
        self.let_go_of(index);
        let last = self.read.len() - 1;
        if index != last {
            self.let_go_of(last);
        }
        let gone = self.read.swap_remove(index);
        self.bytes = self.bytes.saturating_sub(gone.bytes());
        // No more than have a number.
        if index != last
            && let Ok(index) = u32::try_from(index)
        {
            self.enter(index);
        }
    }

    /// Has a path not be found any more.
    fn let_go_of(&mut self, index: usize) {
        let Ok(index) = u32::try_from(index) else { return };
        self.let_go(Name::Nar(index));
        self.let_go(Name::File(index));
        let Self { read, by_path, hasher, .. } = self;
        let hash = hasher.hash_one(read[index as usize].path);
        if let Ok(found) = by_path.find_entry(hash, |other| *other == index) {
            found.remove();
        }
    }
}

fn beginning(hash: Sha256) -> Beginning {
    let (first, _) = hash.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
    *first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::path_info::PathInfo;
    use crate::nix::store_path::StorePath;

    fn hash(number: u8) -> StorePathHash {
        StorePathHash::from_bytes([number; 20])
    }

    fn narinfo(path: u8, nar: u8, file_size: Option<u64>) -> NarInfo {
        let path = StorePath::parse(&format!("{}-a", hash(path))).unwrap();
        let info = PathInfo::new(path, Sha256([nar; 32]), 1);
        let (url, compression) = (String::new(), String::new());
        NarInfo { info, url, compression, file_hash: None, file_size }
    }

    fn file(number: u8) -> NarFileName {
        NarFileName::zstd(Sha256([number; 32]))
    }

    fn set(numbers: &[u8]) -> PathSet {
        PathSet::from(numbers.iter().map(|number| hash(*number)).collect::<Vec<_>>())
    }

    /// Of a path that the last scan found.
    fn learn(names: &mut Names, narinfo: &NarInfo, name: NarFileName) {
        names.learn(narinfo, name, &vec![narinfo.info.path.hash()].into());
    }

    #[test]
    fn a_path_is_found_by_its_nar_and_by_its_file_of_which_alone_the_size_is_promised() {
        let mut names = Names::default();
        learn(&mut names, &narinfo(1, 11, Some(5)), file(21));
        learn(&mut names, &narinfo(2, 12, None), file(12));
        for nar in [11, 21] {
            assert_eq!(names.path_of(Sha256([nar; 32])), Some(hash(1)));
        }
        assert_eq!(names.path_of(Sha256([12; 32])), Some(hash(2)));
        assert_eq!(names.path_of(Sha256([13; 32])), None);
        assert_eq!([21, 11, 12].map(|name| names.promised(file(name))), [Some(5), None, None]);
        assert_eq!(names.bytes(), 5);
    }

    #[test]
    fn what_a_narinfo_said_before_it_was_another_is_forgotten() {
        let mut names = Names::default();
        learn(&mut names, &narinfo(1, 11, Some(5)), file(21));
        learn(&mut names, &narinfo(2, 12, Some(6)), file(22));
        learn(&mut names, &narinfo(1, 13, Some(7)), file(23));
        let paths = [11, 21, 13, 23, 12].map(|nar| names.path_of(Sha256([nar; 32])));
        assert_eq!(paths, [None, None, Some(hash(1)), Some(hash(1)), Some(hash(2))]);
        assert_eq!(names.promised(file(23)), Some(7));
        assert_eq!(names.bytes(), 13);
    }

    #[test]
    fn what_is_gone_is_forgotten_a_few_at_a_time_and_the_rest_is_found() {
        let mut names = Names::default();
        for number in 1..=9 {
            learn(&mut names, &narinfo(number, number + 10, Some(5)), file(number + 20));
        }
        let left = [2, 3, 7];
        let (mut before, mut turns) = (None, 0);
        loop {
            before = names.forget_gone(&set(&left), before, 2);
            turns += 1;
            if before.is_none() {
                break;
            }
        }
        assert_eq!((names.len(), names.bytes(), turns), (3, 15, 5));
        for number in 1..=9 {
            let found = left.contains(&number).then_some(hash(number));
            assert_eq!(names.path_of(Sha256([number + 10; 32])), found);
            assert_eq!(names.path_of(Sha256([number + 20; 32])), found);
            assert_eq!(names.has_read(hash(number)), found.is_some());
        }
        assert_eq!(names.forget_gone(&set(&[]), None, 100), None);
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn what_came_after_a_scan_is_not_forgotten_by_what_that_scan_found() {
        let mut names = Names::default();
        names.scan_begins();
        names.learn(&narinfo(1, 11, None), file(11), &set(&[]));
        names.forget_gone(&set(&[]), None, 100);
        assert_eq!(names.path_of(Sha256([11; 32])), Some(hash(1)));
        // The next one does not find it: it is gone.
        names.scan_begins();
        names.forget_gone(&set(&[]), None, 100);
        assert_eq!((names.path_of(Sha256([11; 32])), names.len()), (None, 0));
    }

    #[test]
    fn of_two_paths_with_one_nar_the_later_is_found() {
        let mut names = Names::default();
        learn(&mut names, &narinfo(1, 11, Some(5)), file(11));
        learn(&mut names, &narinfo(2, 11, Some(5)), file(11));
        assert_eq!(names.path_of(Sha256([11; 32])), Some(hash(2)));
        names.forget_gone(&set(&[2]), None, 100);
        assert_eq!(names.path_of(Sha256([11; 32])), Some(hash(2)));
        // Neither is found when the later one goes, and the earlier one is read again.
        names.forget_gone(&set(&[]), None, 100);
        assert_eq!(names.path_of(Sha256([11; 32])), None);
    }

    #[test]
    fn each_path_is_read_once_also_where_there_was_nothing_to_learn() {
        let mut names = Names::default();
        let paths = [1, 2, 3].map(hash);
        let unread = |names: &Names| names.unread(&paths).collect::<Vec<_>>();
        assert_eq!(unread(&names), paths);
        learn(&mut names, &narinfo(1, 11, None), file(11));
        names.were_unreadable(vec![hash(1), hash(2)]);
        assert_eq!((unread(&names), names.len()), (vec![hash(3)], 2));
        // What went and came again is read again.
        names.forget_gone(&set(&[1]), None, 100);
        assert_eq!(unread(&names), [hash(2), hash(3)]);
    }
}
