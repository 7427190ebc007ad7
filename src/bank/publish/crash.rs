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
use super::pending::{Durability, UploadId};
use super::system::{Call, trace::record};
use crate::bank::{Bank, BuildId, Object};
use crate::nix::cache_info::CacheInfo;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};

/// Images for one run; above it the choices are drawn evenly.
const MAX_IMAGES: usize = 512;

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

/// Another path with the NAR of `of`.
fn twin(number: u8, of: u8) -> NewPath {
    let mut info = narinfo(of);
    info.info.path = path(number);
    NewPath {
        hash: path(number).hash(),
        narinfo: info.to_text(&StoreDir::default()),
        ..new_path(of)
    }
}

fn build_ids() -> [BuildId; 2] {
    ["00", "01"].map(|start| BuildId::parse(&format!("{start}{}", "0".repeat(38))).unwrap())
}

fn debug_info(index: usize) -> Vec<(BuildId, String)> {
    vec![(build_ids()[index].clone(), "debug".into())]
}

/// Whether a NAR waits with all that belongs to it.
fn waits_whole(bank: &Bank, number: u8) -> bool {
    let name = NarFileName::bare(Sha256::of(&nar(number)));
    let size = bank.open_pending(name).unwrap().map(|(_, size)| size);
    size == Some(nar(number).len() as u64)
        && bank.pending_facts(name).unwrap().as_deref() == Some(b"facts")
        && bank.pending_listing(name).unwrap().as_deref() == Some(b"listing")
}

/// Whether a path has its listing, and this debug information if it is to have some.
fn has_extras(bank: &Bank, number: u8, debug: Option<usize>) -> bool {
    let there =
        |object: Object, text: &[u8]| bank.read_object(&object).unwrap().as_deref() == Some(text);
    there(Object::Listing(path(number).hash()), b"listing")
        && debug.is_none_or(|index| there(Object::DebugInfo(build_ids()[index].clone()), b"debug"))
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
    /// What each file held after each call, by the name it was made under.
    contents: &'a [(usize, PathBuf, Vec<u8>)],
    /// A sync that is taken out, to see that it is missed.
    without: Option<usize>,
    /// Whether a NAR may have been set aside.
    set_aside: bool,
}

impl Disk<'_> {
    /// The calls that are there, with their numbers.
    fn calls(&self, count: usize) -> impl DoubleEndedIterator<Item = (usize, &Call)> {
        let calls = self.calls[..count].iter().enumerate();
        calls.filter(|(index, _)| Some(*index) != self.without)
    }

    /// The last call that made the bytes of a file durable.
    fn synced(&self, file: &Path, count: usize) -> Option<usize> {
        // Where it lies now: a sync names that.
        let mut names = vec![file.to_path_buf()];
        let mut last = None;
        for (index, call) in self.calls(count) {
            match call {
                Call::Rename(from, to) if names.contains(from) => names.push(to.clone()),
                Call::Sync(synced) if names.contains(synced) => last = Some(index),
                Call::SyncAll => last = Some(index),
                _ => {}
            }
        }
        last
    }

    /// What a file holds after the call of this number.
    fn bytes(&self, file: &Path, number: usize) -> &[u8] {
        let mut of_file =
            self.contents.iter().filter(|(at, name, _)| *at <= number && name == file);
        of_file.next_back().map_or(&[], |(_, _, bytes)| bytes)
    }

    /// Which of the first `count` calls may be lost, as the numbers of calls; for the creation of a
    /// file that is what it holds since the last sync of it.
    fn doubtful(&self, count: usize) -> Vec<usize> {
        let later = |from: usize| self.calls(count).filter(move |(index, _)| *index >= from);
        let is_durable = |(index, call): (usize, &Call)| match call {
            Call::Create(name) => {
                let synced = self.synced(name, count);
                synced.is_some_and(|at| self.bytes(name, at) == self.bytes(name, count))
            }
            Call::Rename(_, to) | Call::Link(_, to) | Call::Remove(to) => {
                let directory = to.parent().unwrap();
                later(index).any(|(_, call)| match call {
                    Call::SyncDirectory(synced) => synced == directory,
                    Call::SyncAll => true,
                    _ => false,
                })
            }
            Call::Sync(_) | Call::SyncDirectory(_) | Call::SyncAll => true,
        };
        self.calls(count).filter(|one| !is_durable(*one)).map(|(index, _)| index).collect()
    }

    /// Makes the directory that a cut leaves, below `to`.
    fn image(&self, cut: &Cut, to: &Path) {
        let doubtful = self.doubtful(cut.calls);
        let is_lost = |index: usize| {
            let bit = doubtful.iter().position(|one| *one == index);
            bit.is_some_and(|bit| cut.lost >> bit & 1 == 1)
        };
        let mut names: BTreeMap<&Path, &Path> = BTreeMap::new();
        let mut old = Vec::new();
        for (index, call) in self.calls(cut.calls) {
            let lost = is_lost(index);
            match call {
                Call::Create(name) => {
                    names.insert(name, name);
                    if lost {
                        old.push(name.as_path());
                    }
                }
                Call::Rename(from, to) if !lost => {
                    if let Some(file) = names.remove(from.as_path()) {
                        names.insert(to, file);
                    }
                }
                Call::Link(from, to) if !lost => {
                    if let Some(file) = names.get(from.as_path()).copied() {
                        names.insert(to, file);
                    }
                }
                Call::Remove(name) if !lost => drop(names.remove(name.as_path())),
                _ => {}
            }
        }
        for (name, file) in names {
            let bytes = if old.contains(&file) {
                self.synced(file, cut.calls).map_or(&[][..], |at| self.bytes(file, at))
            } else {
                self.bytes(file, cut.calls)
            };
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

/// Whether something holds, and if not, what does not.
type Held = Result<(), String>;

fn hold(holds: bool, what: &str) -> Held {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// I1, of everything that is visible; gives the numbers of the paths that are. Where a NAR may have been
/// set aside a path without one is none of them: that is seen before it is answered.
fn check_visible(bank: &Bank, set_aside: bool) -> Result<Vec<u8>, String> {
    let mut found = Vec::new();
    bank.scan(|hash| found.push(hash)).unwrap();
    let mut visible = Vec::new();
    for hash in &found {
        let text = bank.read_narinfo(*hash).unwrap().unwrap();
        let narinfo =
            NarInfo::parse(&text, &StoreDir::default()).map_err(|error| error.to_string())?;
        let name = NarFileName::parse(narinfo.url.strip_prefix("nar/").unwrap()).unwrap();
        let Some((mut file, size)) = bank.open_nar(name).unwrap() else {
            hold(set_aside, "a narinfo without its NAR")?;
            continue;
        };
        hold(Some(size) == narinfo.file_size, "a NAR of another size")?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        hold(Sha256::of(&bytes) == narinfo.info.nar_hash, "a NAR of other bytes")?;
        for reference in &narinfo.info.references {
            hold(found.contains(&reference.hash()), "a reference that is not there")?;
        }
        if let Some(text) = bank.read_object(&Object::Listing(*hash)).unwrap() {
            hold(text == b"listing", "a listing that is not whole")?;
        }
        visible.push(hash.as_bytes()[0]);
    }
    for id in build_ids() {
        if let Some(text) = bank.read_object(&Object::DebugInfo(id)).unwrap() {
            hold(text == b"debug", "debug information that is not whole")?;
        }
    }
    visible.sort_unstable();
    Ok(visible)
}

/// What is looked at after a cut: what is visible, the bank, the numbers of calls after which something
/// was acknowledged, and how many calls were made.
type Check<'a> = &'a dyn Fn(&[u8], &Bank, &[usize], usize) -> Held;

/// Runs `work` on a bank, cuts it everywhere, recovers, and has `check` look. Then takes out one sync
/// after the other, and expects to find something wrong, but for those of `spare`.
fn at_every_cut(work: impl FnOnce(&Bank, &mut dyn FnMut()), check: Check<'_>, spare: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let bank = open(directory.path());
    let mut acknowledged = Vec::new();
    let (contents, calls) = record(|| {
        work(&bank, &mut || acknowledged.push(super::system::trace::count()));
        super::system::trace::contents()
    });
    let set_aside = directory.path().join("damaged").read_dir().unwrap().next().is_some();
    let root = directory.path();
    let whole = Disk { root, calls: &calls, contents: &contents, without: None, set_aside };
    let began = Instant::now();
    let (images, held) = cut_everywhere(&whole, &acknowledged, check);
    held.unwrap();
    println!("{images} images of {} calls in {:?}", calls.len(), began.elapsed());
    let is_sync =
        |call: &Call| matches!(call, Call::Sync(_) | Call::SyncDirectory(_) | Call::SyncAll);
    let syncs = (0..calls.len()).filter(|index| is_sync(&calls[*index]));
    let mut unnoticed = Vec::new();
    let mut images = 0;
    for without in syncs.clone() {
        let (count, held) =
            cut_everywhere(&Disk { without: Some(without), ..whole }, &acknowledged, check);
        images += count;
        if held.is_ok() {
            unnoticed.push(match &calls[without] {
                Call::Sync(name) | Call::SyncDirectory(name) => {
                    name.strip_prefix(root).unwrap().display().to_string()
                }
                _ => "all".to_owned(),
            });
        }
    }
    println!("{} syncs taken out, {images} images in {:?}", syncs.count(), began.elapsed());
    assert_eq!(unnoticed, spare, "what nobody misses");
}

/// How many images were looked at, until one was found that does not hold.
fn cut_everywhere(disk: &Disk<'_>, acknowledged: &[usize], check: Check<'_>) -> (usize, Held) {
    let cuts = cuts(disk);
    for (number, cut) in cuts.iter().enumerate() {
        let image = tempfile::tempdir().unwrap();
        drop(open(image.path()));
        disk.image(cut, image.path());
        let held = recovered(image.path()).and_then(|bank| {
            let visible = check_visible(&bank, disk.set_aside)?;
            check(&visible, &bank, acknowledged, cut.calls)
        });
        if held.is_err() {
            return (number + 1, held);
        }
    }
    (cuts.len(), Ok(()))
}

fn recovered(root: &Path) -> Result<Bank, String> {
    let info = CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
    let bank = Bank::open(root.into(), &info).unwrap();
    bank.recover().map_err(|error| error.to_string())?;
    hold(std::fs::read_dir(root.join("tmp")).unwrap().count() == 0, "temporary files")?;
    hold(bank.journals().unwrap().is_empty(), "a journal that was not finished")?;
    Ok(bank)
}

#[test]
fn one_path_cut_anywhere_is_there_whole_or_not_at_all() {
    at_every_cut(
        |bank, acknowledge| {
            add_pending(bank, 1, Durability::Now);
            acknowledge();
            bank.publish_path(&NewPath { debug_info: debug_info(0), ..new_path(1) }).unwrap();
            acknowledge();
        },
        &|visible, bank, acknowledged, calls| {
            let name = NarFileName::bare(Sha256::of(&nar(1)));
            let placed = bank.open_nar(NarFileName::zstd(name.hash)).unwrap().is_some();
            if calls >= acknowledged[0] {
                hold(waits_whole(bank, 1) || placed, "an acknowledged NAR is gone")?;
            }
            if calls >= acknowledged[1] {
                hold(visible == [1], "an acknowledged path is gone")?;
                hold(has_extras(bank, 1, Some(0)), "its listing or debug information is gone")?;
            }
            Ok(())
        },
        &[],
    );
}

#[test]
fn a_commit_cut_anywhere_is_there_as_a_whole_or_not_at_all() {
    at_every_cut(
        |bank, acknowledge| {
            for number in 1..=3 {
                add_pending(bank, number, Durability::WithCommit);
            }
            let second = NewPath { debug_info: debug_info(1), ..new_path(2) };
            bank.commit(&[new_path(1), second, new_path(3), twin(4, 1)]).unwrap();
            acknowledge();
        },
        &|visible, bank, acknowledged, calls| {
            hold(visible.is_empty() || visible == [1, 2, 3, 4], "a part of a commit")?;
            if calls >= acknowledged[0] {
                hold(!visible.is_empty(), "an acknowledged commit is gone")?;
                hold(has_extras(bank, 2, Some(1)), "listing or debug information is gone")?;
                hold(has_extras(bank, 4, None), "the listing of the second path of a NAR is gone")?;
            }
            Ok(())
        },
        // That the journal is gone: done once more it changes nothing, as long as nothing came after it,
        // which the next test is about.
        &["pending"],
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
            add_pending(bank, 1, Durability::WithCommit);
            bank.commit(&[new_path(1)]).unwrap();
            acknowledge();
            bank.replace_narinfo(path(1).hash(), &text).unwrap();
            acknowledge();
        },
        &|visible, bank, acknowledged, calls| {
            if calls < acknowledged[0] {
                return Ok(());
            }
            hold(visible == [1], "an acknowledged path is gone")?;
            let found = bank.read_narinfo(path(1).hash()).unwrap().unwrap();
            let old = narinfo(1).to_text(&StoreDir::default());
            let is_old = found == old.as_bytes() && calls < acknowledged[1];
            hold(is_old || found == more.as_bytes(), "neither the old narinfo nor the new one")
        },
        &[],
    );
}

#[test]
fn an_upload_in_parts_cut_anywhere_has_all_that_its_state_says() {
    let id = UploadId::new([7; 16]);
    let whole = nar(1);
    at_every_cut(
        |bank, acknowledge| {
            bank.create_upload(&id, b"0").unwrap();
            acknowledge();
            for end in [2, whole.len()] {
                let mut file = bank.open_upload(&id).unwrap();
                std::io::Write::write_all(&mut file, &whole[..end]).unwrap();
                bank.advance_upload(&id, &file, end.to_string().as_bytes()).unwrap();
                acknowledge();
            }
        },
        &|_, bank, acknowledged, calls| {
            let state =
                bank.upload_state(&id).unwrap().map(|text| String::from_utf8(text).unwrap());
            let good: Option<usize> = state.map(|text| text.parse().unwrap_or(usize::MAX));
            if let Some(good) = good {
                let mut bytes = Vec::new();
                let mut file = bank.open_upload(&id).map_err(|error| error.to_string())?;
                std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
                hold(bytes.get(..good) == whole.get(..good), "less than its state says")?;
                hold(good <= whole.len(), "a state that does not read")?;
            }
            let least = acknowledged.iter().filter(|at| calls >= **at).count();
            hold(good >= [None, Some(0), Some(2), Some(whole.len())][least], "a part is gone")
        },
        &[],
    );
}

#[test]
fn a_nar_that_is_set_aside_is_set_aside_for_good_and_a_new_one_takes_its_place() {
    at_every_cut(
        |bank, acknowledge| {
            add_pending(bank, 1, Durability::WithCommit);
            bank.commit(&[new_path(1)]).unwrap();
            bank.set_aside(NarFileName::zstd(Sha256::of(&nar(1)))).unwrap();
            acknowledge();
            add_pending(bank, 1, Durability::WithCommit);
            bank.commit(&[NewPath { replace: true, ..new_path(1) }]).unwrap();
            acknowledge();
        },
        &|visible, bank, acknowledged, calls| {
            let name = NarFileName::zstd(Sha256::of(&nar(1))).file_name();
            let is_aside = bank.root().join("damaged").join(name).exists();
            hold(calls < acknowledged[0] || is_aside, "what was set aside is gone")?;
            hold(calls < acknowledged[1] || visible == [1], "an acknowledged path is gone")
        },
        // Where a name that was renamed away stays as well: no file system here does that. And the
        // journal, as above.
        &["nar", "pending"],
    );
}
