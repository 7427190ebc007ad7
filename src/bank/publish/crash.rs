//! Row R1 of the test matrix: the machine stops after any call, and of what was not synced any part
//! is lost. What recovery then finds must keep I1 and I2.
//!
//! The calls of a real run are recorded. For each beginning of them, and each choice of those not
//! yet durable, a directory is made as that power cut would leave it, and recovered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Staged;
use super::commit::NewPath;
use super::pending::Durability;
use super::system::trace::{Call, record};
use crate::bank::Bank;
use crate::nix::cache_info::CacheInfo;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};

/// Images for one run; above it the choices are drawn evenly.
const MAX_IMAGES: usize = 4096;

fn open(root: &Path) -> Bank {
    let info = CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
    let bank = Bank::open(root.into(), &info).unwrap();
    bank.prepare_for_pushes().unwrap();
    bank.recover().unwrap();
    bank
}

/// The path with this number, whose NAR is `nar <number>` and which refers to the one before it.
fn path(number: u8) -> StorePath {
    let hash = StorePathHash::from_bytes([number; 20]);
    StorePath::parse(&format!("{hash}-path-{number}")).unwrap()
}

fn nar(number: u8) -> Vec<u8> {
    format!("nar {number}").into_bytes()
}

fn narinfo(number: u8) -> NarInfo {
    let bytes = nar(number);
    let nar_hash = Sha256::of(&bytes);
    let mut info = PathInfo::new(path(number), nar_hash, bytes.len() as u64);
    info.references = (1..number).rev().take(1).map(path).collect();
    NarInfo {
        info,
        url: NarFileName::zstd(nar_hash).url(),
        compression: "zstd".into(),
        file_hash: Some(nar_hash),
        file_size: Some(bytes.len() as u64),
    }
}

fn new_path(number: u8) -> NewPath {
    let nar_hash = Sha256::of(&nar(number));
    NewPath {
        hash: path(number).hash(),
        narinfo: narinfo(number).to_text(&StoreDir::default()),
        nar: (NarFileName::bare(nar_hash), NarFileName::zstd(nar_hash)),
        debug_info: Vec::new(),
        replace: false,
    }
}

fn add_pending(bank: &Bank, number: u8, durability: Durability) {
    let staged = Staged::create(bank.root()).unwrap();
    staged.write(&nar(number)).unwrap();
    let name = NarFileName::bare(Sha256::of(&nar(number)));
    bank.add_pending(name, &staged, b"facts", Some(b"listing"), durability).unwrap();
}

/// A power cut: how many calls were made, and which choice of the doubtful is lost.
struct Cut {
    calls: usize,
    lost: u64,
}

/// A disk as far as these calls touch it.
struct Disk<'a> {
    root: &'a Path,
    calls: &'a [Call],
    /// What each file holds that was ever renamed or linked, by the name it was made under.
    contents: BTreeMap<PathBuf, Vec<u8>>,
}

impl Disk<'_> {
    /// Which of the first `count` calls may be lost, as the numbers of calls; for the creation of a
    /// file that is its content.
    fn doubtful(&self, count: usize) -> Vec<usize> {
        let later = |from: usize| self.calls[from..count].iter();
        let is_durable = |index: usize| match &self.calls[index] {
            Call::Create(name) => later(index).any(|call| match call {
                Call::Sync(synced) => synced == name,
                Call::SyncAll => true,
                _ => false,
            }),
            Call::Rename(_, to) | Call::Link(_, to) | Call::Remove(to) => {
                let directory = to.parent().unwrap();
                later(index).any(|call| match call {
                    Call::SyncDirectory(synced) => synced == directory,
                    Call::SyncAll => true,
                    _ => false,
                })
            }
            Call::Sync(_) | Call::SyncDirectory(_) | Call::SyncAll => true,
        };
        (0..count).filter(|index| !is_durable(*index)).collect()
    }

    /// Makes the directory that a cut leaves, below `to`.
    fn image(&self, cut: &Cut, to: &Path) {
        let doubtful = self.doubtful(cut.calls);
        let is_lost = |index: usize| {
            doubtful
                .iter()
                .position(|one| *one == index)
                .is_some_and(|bit| cut.lost >> bit & 1 == 1)
        };
        let mut names: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let mut empty = Vec::new();
        for (index, call) in self.calls[..cut.calls].iter().enumerate() {
            let lost = is_lost(index);
            match call {
                Call::Create(name) => {
                    names.insert(name.clone(), name.clone());
                    if lost {
                        empty.push(name.clone());
                    }
                }
                Call::Rename(from, to) if !lost => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
                Call::Link(from, to) if !lost => {
                    if let Some(file) = names.get(from).cloned() {
                        names.insert(to.clone(), file);
                    }
                }
                Call::Remove(name) if !lost => drop(names.remove(name)),
                _ => {}
            }
        }
        for (name, file) in names {
            let bytes = if empty.contains(&file) { &[][..] } else { &self.contents[&file] };
            let target = to.join(name.strip_prefix(self.root).unwrap());
            std::fs::write(target, bytes).unwrap();
        }
    }
}

/// Every cut of `calls`, or an even draw of them.
fn cuts(disk: &Disk<'_>) -> Vec<Cut> {
    let share = MAX_IMAGES / (disk.calls.len() + 1);
    let mut cuts = Vec::new();
    // A linear congruential generator: the same draw in every run.
    let mut state = 42_u64;
    for calls in 0..=disk.calls.len() {
        let doubtful = disk.doubtful(calls).len();
        assert!(doubtful < 64);
        let choices = 1_u64 << doubtful;
        if choices <= share as u64 {
            cuts.extend((0..choices).map(|lost| Cut { calls, lost }));
            continue;
        }
        // All lost and none lost are always among them.
        cuts.extend([0, choices - 1].map(|lost| Cut { calls, lost }));
        cuts.extend((2..share).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Cut { calls, lost: (state >> 8) % choices }
        }));
    }
    cuts
}

/// I1, of everything that is visible; gives the numbers of the paths that are.
fn check_visible(bank: &Bank) -> Vec<u8> {
    let mut visible = Vec::new();
    bank.scan(|hash| visible.push(hash)).unwrap();
    for hash in &visible {
        let text = bank.read_narinfo(*hash).unwrap().unwrap();
        let narinfo = NarInfo::parse(&text, &StoreDir::default()).unwrap();
        let name = NarFileName::parse(narinfo.url.strip_prefix("nar/").unwrap()).unwrap();
        let (mut file, size) = bank.open_nar(name).unwrap().expect("a narinfo without its NAR");
        assert_eq!(Some(size), narinfo.file_size);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        assert_eq!(Sha256::of(&bytes), narinfo.info.nar_hash);
        for reference in &narinfo.info.references {
            assert!(visible.contains(&reference.hash()), "a reference that is not there");
        }
    }
    let mut numbers: Vec<u8> = visible.iter().map(|hash| hash.as_bytes()[0]).collect();
    numbers.sort_unstable();
    numbers
}

/// Runs `work` on a bank, cuts it everywhere, recovers, and has `check` look: it is given what is
/// visible, the bank, and how many calls were made.
fn at_every_cut(
    work: impl FnOnce(&Bank, &mut dyn FnMut()),
    check: impl Fn(&[u8], &Bank, &[usize], usize),
) {
    let directory = tempfile::tempdir().unwrap();
    let bank = open(directory.path());
    let mut acknowledged = Vec::new();
    let (contents, calls) = record(|| {
        work(&bank, &mut || acknowledged.push(super::system::trace::count()));
        super::system::trace::contents()
    });
    let disk = Disk { root: directory.path(), calls: &calls, contents };
    let began = Instant::now();
    let cuts = cuts(&disk);
    for cut in &cuts {
        let image = tempfile::tempdir().unwrap();
        drop(open(image.path()));
        disk.image(cut, image.path());
        let recovered = open(image.path());
        let visible = check_visible(&recovered);
        assert_eq!(std::fs::read_dir(image.path().join("tmp")).unwrap().count(), 0);
        let journals = recovered.journals().unwrap();
        assert!(journals.is_empty(), "{journals:?}");
        check(&visible, &recovered, &acknowledged, cut.calls);
    }
    println!("{} images of {} calls in {:?}", cuts.len(), calls.len(), began.elapsed());
}

#[test]
fn one_path_cut_anywhere_is_there_whole_or_not_at_all() {
    at_every_cut(
        |bank, acknowledge| {
            add_pending(bank, 1, Durability::Now);
            acknowledge();
            bank.publish_path(&new_path(1)).unwrap();
            acknowledge();
        },
        |visible, bank, acknowledged, calls| {
            let name = NarFileName::bare(Sha256::of(&nar(1)));
            let waits = bank.pending_facts(name).unwrap().is_some();
            let nar_there =
                bank.open_nar(NarFileName::zstd(Sha256::of(&nar(1)))).unwrap().is_some();
            if calls >= acknowledged[0] {
                assert!(waits || nar_there, "an acknowledged NAR is gone");
            }
            if calls >= acknowledged[1] {
                assert_eq!(visible, [1], "an acknowledged path is gone");
            }
        },
    );
}

#[test]
fn a_commit_cut_anywhere_is_there_as_a_whole_or_not_at_all() {
    at_every_cut(
        |bank, acknowledge| {
            for number in 1..=3 {
                add_pending(bank, number, Durability::WithCommit);
            }
            bank.commit(&[new_path(1), new_path(2), new_path(3)]).unwrap();
            acknowledge();
        },
        |visible, _, acknowledged, calls| {
            assert!(visible.is_empty() || visible == [1, 2, 3], "{visible:?}");
            assert!(calls < acknowledged[0] || visible == [1, 2, 3], "acknowledged and gone");
        },
    );
}

#[test]
fn signatures_that_are_added_leave_the_old_narinfo_or_the_new_one() {
    let dir = StoreDir::default();
    let mut more = narinfo(1);
    more.info.deriver = Some(StorePath::parse(&format!("{}.drv", path(9))).unwrap());
    let more = more.to_text(&dir);
    let text = more.clone();
    at_every_cut(
        |bank, acknowledge| {
            add_pending(bank, 1, Durability::Now);
            bank.publish_path(&new_path(1)).unwrap();
            acknowledge();
            bank.replace_narinfo(path(1).hash(), &text).unwrap();
            acknowledge();
        },
        |visible, bank, acknowledged, calls| {
            if calls < acknowledged[0] {
                return;
            }
            assert_eq!(visible, [1]);
            let found = bank.read_narinfo(path(1).hash()).unwrap().unwrap();
            let old = narinfo(1).to_text(&StoreDir::default());
            let is_new = found == more.as_bytes();
            assert!(is_new || (found == old.as_bytes() && calls < acknowledged[1]));
        },
    );
}
