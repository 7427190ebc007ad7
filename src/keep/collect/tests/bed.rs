//! A cache that is pushed to, pinned and collected within the process, by a clock that the test sets.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::super::policy::Policy;
use super::super::{Collected, Collector};
use crate::bank::{Bank, narinfo_file_name};
use crate::codec::seekable::Pool;
use crate::index::state::{NewRevision, StateDb};
use crate::ingest::nar::NarLimits;
use crate::ingest::{self, Accept, Ingest, Outcome, Place, PushError, Pusher, Quota};
use crate::metrics::Metrics;
use crate::nix::cache_info::CacheInfo;
use crate::nix::hash::Sha256;
use crate::nix::nar::{Encoder, Event};
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::sign::KeyRing;
use crate::source::cache::Cache;
use crate::source::{BankSource, Source};

/// A path, by its number, that refers to others.
pub(super) fn path(number: usize) -> StorePath {
    let hash = StorePathHash::from_bytes([u8::try_from(number).unwrap(); 20]);
    StorePath::parse(&format!("{hash}-path-{number}")).unwrap()
}

/// The NAR of a path: paths with the same `contents` and references have the same.
fn nar(contents: u8, references: &[usize]) -> Vec<u8> {
    let mut text = vec![contents; 100];
    for reference in references {
        text.extend_from_slice(format!(" /nix/store/{}", path(*reference)).as_bytes());
    }
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    let size = text.len() as u64;
    encoder.event(&Event::File { executable: false, size, contents_offset: 0 }, &mut out);
    encoder.event(&Event::Contents(&text), &mut out);
    encoder.event(&Event::FileEnd, &mut out);
    out
}

pub(super) struct Bed {
    own: tempfile::TempDir,
    pub(super) state: StateDb,
    pub(super) server: Server,
}

/// What lives as long as the process.
pub(super) struct Server {
    pub(super) cache: Arc<Cache>,
    source: Arc<Source>,
    pub(super) bank: Arc<Bank>,
    ingest: Ingest,
}

impl Server {
    fn start(root: &Path) -> Self {
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        let bank = Arc::new(Bank::open(root.to_path_buf(), &info).unwrap());
        bank.recover().unwrap();
        bank.prepare_for_pushes().unwrap();
        let source = BankSource::new(Arc::clone(&bank), StoreDir::default());
        let source = Arc::new(Source::Bank(source));
        let metrics = Arc::new(Metrics::new().unwrap());
        let sources = vec![Arc::clone(&source)];
        let cache =
            Cache::new("default".into(), info, sources, KeyRing::default(), 1 << 20, metrics);
        let cache = Arc::new(cache);
        let policy = ingest::Policy {
            accept: Accept::Pusher,
            trusted_keys: Vec::new(),
            upstream_keys: Vec::new(),
        };
        let place = Place {
            cache: Arc::clone(&cache),
            source: Arc::clone(&source),
            bank: Arc::clone(&bank),
        };
        let pool = Pool::new(NonZeroUsize::MIN).unwrap();
        let (limits, quota) = (NarLimits::default(), Quota::new(None));
        let ingest = Ingest::new(place, policy, limits, quota, pool, None);
        Self { cache, source, bank, ingest }
    }
}

impl Bed {
    pub(super) fn new() -> Self {
        // Thousands of syncs are not what is tested here.
        let own = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let state = StateDb::open(own.path()).unwrap();
        let server = Server::start(&own.path().join("bank"));
        Self { own, state, server }
    }

    /// The process ends and begins anew: what was in memory alone is gone.
    pub(super) fn restart(&mut self) {
        self.server = Server::start(&self.own.path().join("bank"));
    }

    /// As stock Nix pushes: the NAR, then the narinfo.
    pub(super) fn push(
        &self,
        number: usize,
        contents: u8,
        references: &[usize],
        now: i64,
    ) -> Result<Outcome, PushError> {
        let (nar, ingest) = (nar(contents, references), &self.server.ingest);
        let hash = Sha256::of(&nar);
        let mut info = PathInfo::new(path(number), hash, nar.len() as u64);
        info.references = references.iter().map(|one| path(*one)).collect();
        let url = NarFileName::bare(hash).url();
        let compression = "none".into();
        let narinfo = NarInfo { info, url, compression, file_hash: None, file_size: None };
        let text = narinfo.to_text(&StoreDir::default());
        ingest.take_nar(NarFileName::bare(hash), &*nar)?;
        let hash = path(number).hash();
        let outcome = ingest.put_narinfo(hash, text.as_bytes(), &Pusher::anybody(None))?;
        if outcome == Outcome::Published {
            let file = File::open(self.server.bank.root().join(narinfo_file_name(hash))).unwrap();
            let now = UNIX_EPOCH + Duration::from_secs(now.unsigned_abs());
            file.set_modified(now).unwrap();
        }
        Ok(outcome)
    }

    pub(super) fn pin(&self, name: &str, number: usize, now: i64) {
        let paths = [path(number).hash()];
        let revision = NewRevision { cache: "default", name, paths: &paths, pinner: "test" };
        self.state.pin(revision, None, now).unwrap();
    }

    /// Where a damaged state database would lie.
    pub(super) fn damaged_state(&self) -> PathBuf {
        self.own.path().join("state/state.sqlite.corrupt-20260101T000000Z")
    }

    pub(super) fn collector(&self) -> Collector<'_> {
        let Server { cache, source, bank, ingest } = &self.server;
        Collector { cache, source, bank, ingest: Some(ingest), state: &self.state }
    }

    /// Collects, and does `meanwhile` between the plan and what comes of it.
    pub(super) fn collect(&self, policy: &Policy, now: i64, meanwhile: impl FnOnce()) -> Collected {
        let collector = self.collector();
        let plan = collector.plan(policy, now).unwrap();
        meanwhile();
        collector.carry_out(&plan, &|_| true).unwrap()
    }

    pub(super) fn visible(&self) -> Vec<usize> {
        let mut visible = Vec::new();
        let number = |hash: StorePathHash| usize::from(hash.as_bytes()[0]);
        self.server.bank.scan(|hash| visible.push(number(hash))).unwrap();
        visible.sort_unstable();
        visible
    }

    /// Whether a path is whole as it would be served.
    pub(super) fn is_whole(&self, number: usize) -> bool {
        matches!(self.server.source.find(path(number).hash()), Ok(Some(_)))
    }

    /// How many NARs lie there.
    pub(super) fn nars(&self) -> usize {
        std::fs::read_dir(self.server.bank.root().join("nar")).unwrap().count()
    }
}
