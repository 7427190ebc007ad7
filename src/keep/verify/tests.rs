//! What is interrupted goes on, and a clock that jumps changes nothing of it.

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::bank::Bank;
use crate::codec::seekable::{Encoder, Settings};
use crate::index::state::StateDb;
use crate::ingest::nar::NarLimits;
use crate::metrics::Metrics;
use crate::nix::cache_info::CacheInfo;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StoreDir, StorePath};
use crate::sign::KeyRing;
use crate::source::BankSource;

/// A bank of some paths, all well.
struct Bed {
    own: tempfile::TempDir,
    cache: Cache,
    source: Arc<Source>,
    bank: Arc<Bank>,
    state: StateDb,
    hashes: Vec<StorePathHash>,
}

impl Bed {
    fn new(count: u8) -> Self {
        let own = tempfile::tempdir().unwrap();
        let store_dir = StoreDir::default();
        let info = CacheInfo { store_dir: store_dir.clone(), want_mass_query: true, priority: 30 };
        let bank = Bank::of_others(own.path().join("bank"), info.clone());
        std::fs::create_dir_all(bank.root().join("nar")).unwrap();
        std::fs::write(bank.root().join("nix-cache-info"), info.to_text()).unwrap();
        let bank = Arc::new(bank);
        let mut hashes: Vec<_> = (0..count).map(|number| write_path(&bank, number)).collect();
        hashes.sort_unstable();
        let source = BankSource::new(Arc::clone(&bank), store_dir);
        let source = Arc::new(Source::Bank(source));
        let metrics = Arc::new(Metrics::new().unwrap());
        let sources = vec![Arc::clone(&source)];
        let cache = Cache::new("a".into(), info, sources, KeyRing::default(), 0, metrics);
        let state = StateDb::open_or_begin_anew(own.path()).unwrap();
        Self { own, cache, source, bank, state, hashes }
    }

    /// Verifies until so many paths were, at `now`; says what came of it, and how many were read.
    fn run(&self, anew: bool, at_most: u64, now: i64) -> (Verified, u64) {
        let verifier = Verifier {
            cache: &self.cache,
            source: &self.source,
            ingest: None,
            measure: Measure {
                bank: &self.bank,
                store_dir: &StoreDir::default(),
                limits: NarLimits::default(),
                keys: &[],
                is_here: &|_| true,
            },
            state: &self.state,
            mend: None,
        };
        let read = Cell::new(0);
        let goes_on = |_: &Verified, _: Duration| {
            read.set(read.get() + 1);
            read.get() < at_most
        };
        (verifier.run(anew, &|| now, &|_| (), &goes_on).unwrap(), read.get())
    }
}

fn write_path(bank: &Bank, number: u8) -> StorePathHash {
    let mut nar = Vec::new();
    for text in ["nix-archive-1", "(", "type", "regular", "contents", &format!("{number:04}"), ")"]
    {
        nar.extend((text.len() as u64).to_le_bytes());
        nar.extend(text.as_bytes());
        nar.resize(nar.len().next_multiple_of(8), 0);
    }
    let mut encoder = Encoder::new(Vec::new(), Settings::default()).unwrap();
    encoder.write_all(&nar).unwrap();
    let file = encoder.finish().unwrap().1;
    let digits = Sha256::of(&[number]).to_nix32();
    let path = StorePath::parse(&format!("{}-x", &digits[..32])).unwrap();
    let info = PathInfo::new(path, Sha256::of(&nar), nar.len() as u64);
    let name = NarFileName::zstd(info.nar_hash);
    let hash = info.path.hash();
    let narinfo = NarInfo {
        info,
        url: name.url(),
        compression: "zstd".into(),
        file_hash: Some(Sha256::of(&file)),
        file_size: Some(file.len() as u64),
    };
    std::fs::write(bank.root().join(name.url()), file).unwrap();
    let text = narinfo.to_text(&StoreDir::default());
    std::fs::write(bank.root().join(format!("{hash}.narinfo")), text).unwrap();
    hash
}

#[test]
fn what_was_interrupted_goes_on_and_reads_no_path_twice() {
    let bed = Bed::new(10);
    let (first, read) = bed.run(false, 4, 100);
    assert_eq!((first.paths, first.total, read, first.has_ended), (4, 10, 4, false));
    // As another process sees it.
    let state = StateDb::open_or_begin_anew(bed.own.path()).unwrap();
    let known = state.verification("a").unwrap().unwrap();
    assert_eq!((known.position, known.ended), (Some(bed.hashes[3]), None));
    let (second, read) = bed.run(false, 100, 200);
    assert_eq!((second.paths, read, second.has_ended), (10, 6, true));
    let known = state.verification("a").unwrap().unwrap();
    assert_eq!((known.began, known.paths), (100, 10));
    assert!(known.ended.is_some_and(|ended| ended >= 200));
    // What has ended is begun anew.
    assert_eq!(bed.run(false, 100, 300).1, 10);
    bed.run(false, 4, 400);
    assert_eq!(bed.run(true, 100, 500).1, 10, "anew is from the beginning");
}

#[test]
fn what_is_found_stays_noted_until_it_is_well_or_gone() {
    let bed = Bed::new(4);
    let narinfo = |index: usize| bed.bank.root().join(format!("{}.narinfo", bed.hashes[index]));
    let wells = [0, 1].map(|index| std::fs::read(narinfo(index)).unwrap());
    for index in [0, 1] {
        std::fs::write(narinfo(index), "no narinfo").unwrap();
    }
    let (verified, _) = bed.run(false, 100, 100);
    assert_eq!((verified.found, verified.mended), (2, 0));
    let noted = |bed: &Bed| {
        let findings = bed.state.findings("a").unwrap();
        findings.into_iter().map(|found| (found.hash, found.kind)).collect::<Vec<_>>()
    };
    assert_eq!(noted(&bed), [0, 1].map(|index| (bed.hashes[index], "narinfo".to_owned())));
    std::fs::write(narinfo(0), &wells[0]).unwrap();
    std::fs::remove_file(narinfo(1)).unwrap();
    bed.run(false, 100, 200);
    assert_eq!(noted(&bed), []);
}

#[test]
fn a_clock_that_went_back_never_ends_before_it_began() {
    let bed = Bed::new(2);
    bed.run(false, 1, 1000);
    bed.run(false, 100, 10);
    let known = bed.state.verification("a").unwrap().unwrap();
    assert!(known.ended.is_some_and(|ended| ended >= known.began), "{known:?}");
}

#[test]
fn going_on_looks_first_at_what_was_found_and_counts_it_once() {
    let bed = Bed::new(6);
    let narinfo = bed.bank.root().join(format!("{}.narinfo", bed.hashes[1]));
    let well = std::fs::read(&narinfo).unwrap();
    std::fs::write(&narinfo, "no narinfo").unwrap();
    assert_eq!(bed.run(false, 3, 100).0.found, 1);
    std::fs::write(&narinfo, &well).unwrap();
    let (second, read) = bed.run(false, 1, 200);
    assert_eq!((read, second.paths), (1, 3), "that one, again");
    assert!(second.bytes_of_last > 0 && second.bytes > second.bytes_of_last);
    assert_eq!(bed.state.findings("a").unwrap(), []);
    let (last, read) = bed.run(false, 100, 300);
    assert_eq!((read, last.paths, last.has_ended), (3, 6, true));
}

#[test]
fn a_wrong_narinfo_without_a_sum_is_set_aside_and_its_nar_stays() {
    let bed = Bed::new(2);
    let hash = bed.hashes[0];
    let text = bed.bank.read_narinfo(hash).unwrap().unwrap();
    let mut narinfo = NarInfo::parse(&text, &StoreDir::default()).unwrap();
    let nar = narinfo.nar_file().unwrap();
    narinfo.info.nar_hash = Sha256([7; 32]);
    let file = bed.bank.root().join(format!("{hash}.narinfo"));
    std::fs::write(&file, narinfo.to_text(&StoreDir::default())).unwrap();
    assert_eq!(bed.run(false, 100, 100).0.found, 1);
    assert!(!file.exists(), "it is not served any more");
    assert!(bed.bank.root().join(format!("damaged/{hash}.narinfo")).exists());
    assert!(bed.bank.open_nar(nar).unwrap().is_some());
    let findings = bed.state.findings("a").unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].hash, &*findings[0].kind), (hash, "narinfo"));
}

#[test]
fn a_wrong_nar_is_set_aside_whether_its_narinfo_has_a_sum_or_not() {
    let bed = Bed::new(2);
    let with_sum = bed.bank.read_narinfo(bed.hashes[1]).unwrap().unwrap();
    let with_sum = NarInfo::parse(&with_sum, &StoreDir::default()).unwrap();
    std::fs::write(
        bed.bank.root().join(format!("{}.narinfo", bed.hashes[1])),
        with_sum.to_stored_text(&StoreDir::default()),
    )
    .unwrap();
    for hash in &bed.hashes {
        let text = bed.bank.read_narinfo(*hash).unwrap().unwrap();
        let narinfo = NarInfo::parse(&text, &StoreDir::default()).unwrap();
        let file = bed.bank.root().join(&narinfo.url);
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(bed.run(false, 100, 100).0.found, 2);
    let aside = std::fs::read_dir(bed.bank.root().join("damaged")).unwrap();
    let aside = aside.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.contains(".nar")).count(), 2);
    assert!(bed.bank.read_narinfo(bed.hashes[0]).unwrap().is_some(), "the narinfos stay");
}

#[test]
fn a_reference_that_was_declared_elsewhere_is_no_finding_and_one_that_we_took_is() {
    let bed = Bed::new(2);
    let other = bed.bank.read_narinfo(bed.hashes[1]).unwrap().unwrap();
    let other = NarInfo::parse(&other, &StoreDir::default()).unwrap().info.path;
    let text = bed.bank.read_narinfo(bed.hashes[0]).unwrap().unwrap();
    let mut narinfo = NarInfo::parse(&text, &StoreDir::default()).unwrap();
    narinfo.info.references = vec![other];
    let file = bed.bank.root().join(format!("{}.narinfo", bed.hashes[0]));
    std::fs::write(&file, narinfo.to_text(&StoreDir::default())).unwrap();
    assert_eq!(bed.run(false, 100, 100).0.found, 0);
    std::fs::write(&file, narinfo.to_stored_text(&StoreDir::default())).unwrap();
    assert!(bed.run(false, 100, 200).0.found > 0);
    let kinds: Vec<_> = bed.state.findings("a").unwrap().into_iter().map(|it| it.kind).collect();
    assert!(kinds.contains(&"references".to_owned()), "{kinds:?}");
}

#[test]
fn a_listing_may_leave_out_what_is_not_so_and_nothing_else() {
    let bed = Bed::new(1);
    let file = bed.bank.root().join(format!("{}.ls", bed.hashes[0]));
    for (fields, found) in [
        (r#""size":4,"narOffset":96"#, 0),
        (r#""narOffset":96,"executable":false,"size":4"#, 0),
        (r#""size":4,"narOffset":96,"executable":true"#, 1),
        (r#""size":5,"narOffset":96"#, 1),
    ] {
        let text = format!(r#"{{"version":1,"root":{{"type":"regular",{fields}}}}}"#);
        std::fs::write(&file, text).unwrap();
        assert_eq!(bed.run(true, 100, 100).0.found, found, "{fields}");
    }
}
