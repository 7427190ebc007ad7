//! Any bytes as what pushes besides NARs: a narinfo, and the bodies of the native API. Whatever is
//! said of it, what is visible has its NAR, hash and references, and what was there stays as it was.

#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use snowbank::bank::Bank;
use snowbank::codec::seekable::Pool;
use snowbank::ingest::nar::NarLimits;
use snowbank::ingest::{Accept, Ingest, Outcome, Place, Policy, Pusher, Quota};
use snowbank::metrics::Metrics;
use snowbank::native::{CommitRequest, MissingRequest, NewUpload};
use snowbank::nix::cache_info::CacheInfo;
use snowbank::nix::hash::Sha256;
use snowbank::nix::nar_url::NarFileName;
use snowbank::nix::narinfo::NarInfo;
use snowbank::nix::realisation::{BuildTraceKey, DrvOutput};
use snowbank::nix::store_path::{StoreDir, StorePath, StorePathHash};
use snowbank::sign::KeyRing;
use snowbank::source::cache::Cache;
use snowbank::source::{BankSource, Source};

#[path = "../push_fixture.rs"]
mod push_fixture;

use push_fixture::{THERE, WAITS, nar, narinfo};

struct Fixture {
    ingest: Ingest,
    source: Arc<Source>,
    bank: Arc<Bank>,
    root: PathBuf,
    /// The narinfo of THERE as it was published.
    before: Vec<u8>,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture::make());
}

fn path(text: &str) -> StorePath {
    StorePath::parse(text).expect("a store path")
}

fn pusher() -> Pusher {
    Pusher::anybody(None)
}

impl Fixture {
    fn make() -> Self {
        let root = std::env::temp_dir().join(format!("snowbank-fuzz-{}", std::process::id()));
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        let bank = Arc::new(Bank::open(root.clone(), &info).expect("a bank"));
        bank.prepare_for_pushes().expect("directories");
        let source = BankSource::new(Arc::clone(&bank), StoreDir::default());
        let source = Arc::new(Source::Bank(source));
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let sources = vec![Arc::clone(&source)];
        let cache = Cache::new("fuzz".into(), info, sources, KeyRing::default(), 1 << 20, metrics);
        let policy = Policy { accept: Accept::Pusher, trusted_keys: vec![], upstream_keys: vec![] };
        let pool = Pool::new(std::num::NonZeroUsize::MIN).expect("threads");
        let quota = Quota::new(None);
        let (cache, limits) = (Arc::new(cache), NarLimits::default());
        let place = Place { cache, source: Arc::clone(&source), bank: Arc::clone(&bank) };
        let ingest = Ingest::new(place, policy, limits, quota, pool, None);
        let mut fixture = Self { ingest, source, bank, root, before: Vec::new() };
        fixture.wait(THERE);
        let text = narinfo(THERE, "");
        let outcome = fixture.ingest.put_narinfo(path(THERE).hash(), text.as_bytes(), &pusher());
        assert!(matches!(outcome, Ok(Outcome::Published | Outcome::Present)));
        fixture.before = fixture.narinfo_of(THERE).expect("it was published");
        fixture.wait(WAITS);
        fixture
    }

    fn wait(&self, name: &str) {
        let nar = nar(name);
        self.ingest.take_nar(NarFileName::bare(Sha256::of(&nar)), &*nar).expect("a NAR");
    }

    fn visible(&self) -> Vec<StorePathHash> {
        let mut visible = Vec::new();
        self.bank.scan(|hash| visible.push(hash)).expect("a scan");
        visible
    }

    fn narinfo_of(&self, name: &str) -> Option<Vec<u8>> {
        self.bank.read_narinfo(path(name).hash()).expect("the bank can be read")
    }

    /// Undoes what a good input did: it may have published any path that has one of the two NARs.
    fn put_back(&self) {
        let visible = self.visible();
        for hash in visible.iter().filter(|hash| **hash != path(THERE).hash()) {
            let found = self.source.find(*hash).expect("it is whole").expect("it is there");
            let name = if found.info.nar_hash == Sha256::of(&nar(WAITS)) { WAITS } else { THERE };
            assert_eq!(found.info.nar_hash, Sha256::of(&nar(name)));
            assert_eq!(found.info.nar_size, nar(name).len() as u64);
            let is_visible = |path: &StorePath| visible.contains(&path.hash());
            assert!(found.info.references.iter().all(is_visible));
            for file in [format!("{hash}.narinfo"), format!("{hash}.ls")] {
                let _ = std::fs::remove_file(self.root.join(file));
            }
        }
        let (bare, zstd) = (NarFileName::bare, NarFileName::zstd);
        let waits = Sha256::of(&nar(WAITS));
        if self.bank.open_pending(bare(waits)).expect("the bank can be read").is_none() {
            let _ = std::fs::remove_file(self.root.join(zstd(waits).url()));
            self.wait(WAITS);
        }
        let after = self.narinfo_of(THERE).expect("it stays");
        if after != self.before {
            // Only signatures may have come.
            let dir = StoreDir::default();
            let mut after = NarInfo::parse(&after, &dir).expect("it reads");
            after.info.signatures.clear();
            assert_eq!(after.to_text(&dir).as_bytes(), self.before);
            let file = self.root.join(format!("{}.narinfo", path(THERE).hash()));
            std::fs::write(file, &self.before).expect("written");
        }
        assert_eq!(self.visible(), [path(THERE).hash()]);
        for upload in self.bank.uploads().expect("a list") {
            self.bank.remove_upload(&upload).expect("removed");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    FIXTURE.with_borrow(|fixture| {
        let ingest = &fixture.ingest;
        match kind % 8 {
            0 => drop(ingest.put_narinfo(path(WAITS).hash(), bytes, &pusher())),
            1 => drop(ingest.put_narinfo(path(THERE).hash(), bytes, &pusher())),
            2 => {
                if let Ok(request) = serde_json::from_slice::<CommitRequest>(bytes) {
                    match ingest.commit(&request, &pusher()) {
                        Ok(_) => {}
                        Err(errors) => assert!(!errors.is_empty(), "a refusal has a reason"),
                    }
                }
            }
            3 => {
                if let Ok(request) = serde_json::from_slice::<MissingRequest>(bytes) {
                    let missing =
                        ingest.missing(&request.paths, request.verify).expect("an answer");
                    assert!(!missing.contains(&path(THERE).hash()));
                }
            }
            4 => {
                if let Ok(request) = serde_json::from_slice::<NewUpload>(bytes) {
                    drop(ingest.begin_upload(&request, "fuzz"));
                }
            }
            5 => {
                let key = DrvOutput::parse(&format!("sha256:{}!out", "a".repeat(64)));
                drop(ingest.put_realisation(&key.expect("a key"), bytes));
            }
            6 => {
                let key = BuildTraceKey::parse(&format!("{WAITS}.drv"), "out");
                drop(ingest.put_build_trace(&key.expect("a key"), bytes));
            }
            _ => drop(ingest.put_listing(bytes)),
        }
        fixture.put_back();
    });
});
