//! A named cache: its sources in order, its keys, and what it remembers of its answers.
//!
//! What is in memory is believed for [`BELIEVED`] after the last look at every source, so that
//! under load a look costs nothing. Then one request looks again; the others go on believing for as
//! long again and no longer, so what changed earlier is never answered from memory.
//! A narinfo is remembered as the text that is sent, with the version of the sources that it is of;
//! its signatures are remembered by their fingerprint, which outlives that version.
//!
//! A *view* is a cache as it was at a snapshot of its bank: a cache of its own in every respect, but that
//! it signs with the same keys, keeps no file open, and says nothing of itself in the metrics of the
//! sources, which are the live cache's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::HeaderValue;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Memory;

use super::behind::behind_requests;
use super::signer::Signer;
use super::{Source, SourceError, StoredFile};
use crate::index::holdings::{Arrivals, Known, News};
use crate::index::uses::Uses;
use crate::metrics::{Metrics, SourceLabel};
use crate::nix::cache_info::CacheInfo;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::signature::{Signature, fingerprint};
use crate::nix::store_path::StorePathHash;
use crate::sign::KeyRing;
use crate::zfs::SnapshotName;

/// How old a look at the sources may be for memory to be believed.
pub const BELIEVED: Duration = Duration::from_millis(20);
/// Files of NARs that are kept open between requests, each for a second at most, so that a dataset
/// can be unmounted.
const OPEN_FILES: usize = 1024;
/// Memory for the narinfos of a view, in bytes.
const VIEW_MEMORY: u64 = 4 << 20;

/// A named cache.
pub struct Cache {
    /// Its name; the default one is `default`.
    pub name: String,
    /// The snapshot that it is a view of; nothing for the live cache.
    pub snapshot: Option<SnapshotName>,
    /// What it says of itself.
    pub info: CacheInfo,
    sources: Vec<Arc<Source>>,
    signer: Arc<Signer>,
    started: Instant,
    /// Milliseconds after `started` until which memory is believed.
    believed_until: AtomicU64,
    /// Whether somebody has taken it upon them to look.
    looking: AtomicBool,
    narinfos: Memory<StorePathHash, Arc<Answer>, AnswerWeight>,
    files: Memory<NarFileName, Arc<OpenNar>>,
    uses: Uses,
    arrivals: Arrivals,
    metrics: Arc<Metrics>,
}

/// A narinfo as it is sent.
pub struct Answer {
    /// The text.
    pub text: Bytes,
    /// A strong validator of the text.
    pub tag: HeaderValue,
    /// What the text says.
    pub narinfo: NarInfo,
    /// Which source had it.
    pub source: Arc<Source>,
    version: u64,
}

/// A stored NAR whose file is open, to be sent as it lies.
pub struct OpenNar {
    /// The file.
    pub file: Arc<StoredFile>,
    /// Its size in bytes.
    pub size: u64,
    /// A strong validator of its bytes.
    pub tag: HeaderValue,
    version: u64,
}

/// What memory says of a path.
pub enum Remembered {
    /// Its narinfo.
    Hit(Arc<Answer>),
    /// No source has it.
    Miss,
    /// The sources must be asked.
    Unknown,
}

/// Why a cache could not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cache {cache} cannot be read now: {why}")]
pub struct Unavailable {
    /// Which cache.
    pub cache: String,
    /// For the log; it may name files, so clients do not see it.
    pub why: String,
}

/// Weighs an answer by its bytes in memory.
#[derive(Clone)]
struct AnswerWeight;

impl Weighter<StorePathHash, Arc<Answer>> for AnswerWeight {
    fn weight(&self, _: &StorePathHash, answer: &Arc<Answer>) -> u64 {
        // The parsed narinfo takes about what its text takes, and the rest about 700 bytes (by a profile of the heap).
        answer.text.len() as u64 * 2 + 700
    }
}

impl Cache {
    /// Joins sources, in the order in which they are asked. `memory` bounds the narinfos that are
    /// remembered, in bytes.
    pub fn new(
        name: String,
        info: CacheInfo,
        sources: Vec<Arc<Source>>,
        keys: KeyRing,
        memory: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        let signer = Arc::new(Signer::new(keys, Arc::clone(&metrics)));
        Self::with_signer(name, info, sources, signer, memory, metrics)
    }

    /// The view of this cache at a snapshot, as `source` has it.
    pub fn view(&self, snapshot: SnapshotName, info: CacheInfo, source: Source) -> Self {
        let (name, metrics) = (self.name.clone(), Arc::clone(&self.metrics));
        let signer = Arc::clone(&self.signer);
        let sources = vec![Arc::new(source)];
        let view = Self::with_signer(name, info, sources, signer, VIEW_MEMORY, metrics);
        Self { snapshot: Some(snapshot), ..view }
    }

    fn with_signer(
        name: String,
        info: CacheInfo,
        sources: Vec<Arc<Source>>,
        signer: Arc<Signer>,
        memory: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        let expected = usize::try_from(memory / 2048).unwrap_or(usize::MAX).max(16);
        for source in &sources {
            source.count_read_errors_with(metrics.read_errors(source.label()));
        }
        Self {
            name,
            snapshot: None,
            info,
            sources,
            signer,
            started: Instant::now(),
            believed_until: AtomicU64::new(0),
            looking: AtomicBool::new(false),
            narinfos: Memory::with_weighter(expected, memory, AnswerWeight),
            files: Memory::new(OPEN_FILES),
            uses: Uses::default(),
            arrivals: Arrivals::default(),
            metrics,
        }
    }

    /// The sources, in order.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// The bank that is its own, as a source of it.
    pub fn own_bank(&self) -> Option<&Arc<Source>> {
        let is_own = |source: &&Arc<Source>| match &***source {
            Source::Bank(bank) => bank.label() == SourceLabel::Bank,
            Source::Store(_) => false,
        };
        self.sources.iter().find(is_own)
    }

    /// What was asked for, of what lies in its banks.
    pub const fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Notes that a path came to one of its banks.
    pub fn came(&self, hash: StorePathHash) {
        self.arrivals.came(hash);
    }

    /// What it holds, or what came since `known`; `None` while not all of it is known. May take a tenth of a
    /// second where there are a million paths.
    pub fn holdings(&self, known: Option<Known>) -> Option<News> {
        if let Some(news) = known.and_then(|known| self.arrivals.since(known)) {
            return Some(news);
        }
        let scanned = |source: &Arc<Source>| source.presence().was_scanned();
        self.sources.iter().all(scanned).then(|| {
            self.arrivals.whole(|each| {
                for source in &self.sources {
                    source.presence().known().paths.as_slice().iter().for_each(|hash| each(*hash));
                }
            })
        })
    }

    /// Notes that somebody goes by this path being here.
    pub fn asked_for(&self, hash: StorePathHash) {
        // A snapshot holds what it holds, whoever asks for it.
        if self.snapshot.is_some() {
            return;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.uses.note(hash, i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX));
    }

    /// Notes that somebody got this answer.
    pub fn answered(&self, answer: &Answer) {
        if matches!(*answer.source, Source::Bank(_)) {
            self.asked_for(answer.narinfo.info.path.hash());
        }
    }

    /// Notes that the NAR of this hash is read, as far as it is known whose it is.
    pub fn nar_asked_for(&self, nar_hash: Sha256) {
        let path = self.sources.iter().find_map(|source| source.path_of_nar(nar_hash));
        if let Some(path) = path {
            self.asked_for(path);
        }
    }

    /// Where it is counted what becomes of it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The keys that sign.
    pub fn keys(&self) -> Arc<KeyRing> {
        self.signer.keys()
    }

    /// Signs with other keys from now on.
    pub fn set_keys(&self, keys: KeyRing) {
        self.signer.set_keys(keys);
    }

    /// Forgets the narinfo of a path, whose NAR is offered in another form now.
    pub fn forget(&self, hash: StorePathHash) {
        self.narinfos.remove(&hash);
    }

    /// What memory knows of a path. Takes no lock for long and does no I/O.
    pub fn remembered(&self, hash: StorePathHash) -> Remembered {
        if !self.may_believe_meanwhile() {
            return Remembered::Unknown;
        }
        if let Some(answer) = self.current(hash) {
            return Remembered::Hit(answer);
        }
        let absent = |source: &Arc<Source>| source.presence().contains(hash) == Some(false);
        if self.sources.iter().all(absent) { Remembered::Miss } else { Remembered::Unknown }
    }

    /// A stored NAR that was sent a moment ago, if nothing has changed since.
    pub fn open_nar(&self, name: NarFileName) -> Option<Arc<OpenNar>> {
        if !self.may_believe_meanwhile() {
            return None;
        }
        self.files.get(&name).filter(|open| open.version == self.version())
    }

    /// Keeps the file of a stored NAR open for the requests that follow; that of a snapshot never,
    /// which could not be destroyed meanwhile.
    pub fn keep_open(&self, name: NarFileName, file: Arc<StoredFile>, size: u64, tag: HeaderValue) {
        if self.snapshot.is_some() {
            return;
        }
        let version = self.version();
        self.files.insert(name, Arc::new(OpenNar { file, size, tag, version }));
    }

    /// Closes the files that were kept open.
    pub fn close_files(&self) {
        self.files.clear();
    }

    /// Looks at every source, so that memory may be believed for a while. Blocks.
    ///
    /// Fails if any source cannot be read; the others are looked at all the same.
    pub fn look(&self) -> Result<(), Unavailable> {
        let began = self.milliseconds();
        let mut failure = None;
        for source in &self.sources {
            let looked = source.look();
            if self.snapshot.is_none() {
                let up = looked.is_ok() && source.is_there();
                self.metrics.source(&self.name, source.name(), up, source.presence().len());
                if let Some(bytes) = source.nar_bytes() {
                    self.metrics.source_bytes(&self.name, source.name(), bytes);
                }
                let held = source.quarantine().map_or(0, |quarantine| quarantine.len());
                self.metrics.quarantined(&self.name, source.name(), held);
            }
            if let Err(error) = looked {
                failure.get_or_insert(error);
            }
        }
        self.looking.store(false, Ordering::Release);
        match failure {
            None => {
                let until = began + u64::try_from(BELIEVED.as_millis()).unwrap_or(0);
                self.believed_until.fetch_max(until, Ordering::AcqRel);
                Ok(())
            }
            Some(error) => {
                self.doubt();
                Err(self.unavailable(error))
            }
        }
    }

    /// Believes nothing any more until the next good look.
    pub fn doubt(&self) {
        self.believed_until.store(0, Ordering::Release);
    }

    /// Notes that we have changed `source` ourselves, so that the next request sees it.
    pub fn changed(&self, source: &Source) {
        source.presence().truth_changed();
        self.doubt();
    }

    /// Whether a scan of some source is due.
    pub fn needs_scan(&self) -> bool {
        self.sources.iter().any(|source| !source.presence().is_exact())
    }

    /// Scans what is due. Blocks, for as long as the scan takes.
    pub fn scan(&self) {
        for source in &self.sources {
            if let Err(error) = source.scan_if_due() {
                tracing::warn!(cache = self.name, "scan failed: {error}");
            }
        }
    }

    /// Learns what the sources have, as far as their names do not tell it. Blocks, for as long as it takes to read all
    /// that is new.
    pub fn learn(&self) {
        if self.sources.iter().any(|source| source.has_more_to_learn()) {
            behind_requests(|| while self.sources.iter().any(|source| source.learn_some()) {});
        }
    }

    /// Asks the sources in order. Blocks. `Ok(None)` means that none has the path, for certain.
    pub fn find(&self, hash: StorePathHash) -> Result<Option<Arc<Answer>>, Unavailable> {
        if (self.is_believed() || self.look().is_ok())
            && let Some(answer) = self.current(hash)
        {
            return Ok(Some(answer));
        }
        let version = self.version();
        let Some((source, narinfo)) = self.first(|source| source.find(hash))? else {
            return Ok(None);
        };
        let answer = Arc::new(self.render(narinfo, source, version));
        self.narinfos.insert(hash, Arc::clone(&answer));
        Ok(Some(answer))
    }

    /// The first source that has what `ask` asks for. Blocks.
    ///
    /// A damaged object counts as absent, and is counted; where no source has the object and one
    /// could not be read, that is an error, never an absence.
    pub fn first<T>(
        &self,
        ask: impl Fn(&Source) -> Result<Option<T>, SourceError>,
    ) -> Result<Option<(Arc<Source>, T)>, Unavailable> {
        let looked = if self.is_believed() { Ok(()) } else { self.look() };
        let mut failure = None;
        for source in &self.sources {
            match ask(source) {
                Ok(Some(found)) => return Ok(Some((Arc::clone(source), found))),
                Ok(None) => {}
                Err(SourceError::Damaged(why)) => {
                    self.metrics.damaged.inc();
                    tracing::debug!(cache = self.name, "damaged: {why}");
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(self.unavailable(error)),
            // An empty mount point has no files either: only with a good look is it an absence.
            None => looked.map(|()| None),
        }
    }

    /// Signs with every key, or remembers having done so.
    pub fn sign(&self, text: &str) -> Arc<Vec<Signature>> {
        self.signer.sign(text)
    }

    /// A narinfo of a path that no source has yet, and that `source` will have, as it is sent. It is not remembered.
    pub fn answer_with(&self, narinfo: NarInfo, source: &Arc<Source>) -> Answer {
        self.render(narinfo, Arc::clone(source), self.version())
    }

    fn render(&self, mut narinfo: NarInfo, source: Arc<Source>, version: u64) -> Answer {
        let made = self.sign(&fingerprint(&self.info.store_dir, &narinfo.info));
        narinfo.info.signatures = merge(&narinfo.info.signatures, &made);
        // Kept for long, so without the room to grow that it was written with.
        let text = narinfo.to_text(&self.info.store_dir).into_boxed_str().into_boxed_bytes();
        let text = Bytes::from(text);
        let tag = tag_of(&text);
        Answer { text, tag, narinfo, source, version }
    }

    /// Counts every change of any source and of the keys.
    fn version(&self) -> u64 {
        let sources: u64 = self.sources.iter().map(|source| source.version()).sum();
        sources + self.signer.version()
    }

    /// What is remembered of a path, if nothing has changed since.
    fn current(&self, hash: StorePathHash) -> Option<Arc<Answer>> {
        self.narinfos.get(&hash).filter(|answer| answer.version == self.version())
    }

    /// Whether the last look at every source was good, and is not long ago.
    pub fn is_believed(&self) -> bool {
        self.milliseconds() < self.believed_until.load(Ordering::Acquire)
    }

    /// Whether the caller may go by memory: it is fresh, or another has just set out to look.
    fn may_believe_meanwhile(&self) -> bool {
        let (now, until) = (self.milliseconds(), self.believed_until.load(Ordering::Acquire));
        let grace = u64::try_from(BELIEVED.as_millis()).unwrap_or(0);
        now < until || (now < until + grace && self.looking.swap(true, Ordering::AcqRel))
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Says that this cache cannot be read, for the log.
    pub fn unavailable(&self, error: SourceError) -> Unavailable {
        Unavailable { cache: self.title(), why: error.to_string() }
    }

    /// The name for people: `team`, or `team@nightly` for a view.
    pub fn title(&self) -> String {
        match &self.snapshot {
            Some(snapshot) => format!("{}@{snapshot}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Ours and theirs, one a key: of two by the same key, ours, which is of what is sent.
pub fn merge(theirs: &[Signature], ours: &[Signature]) -> Vec<Signature> {
    let mut merged: BTreeMap<&str, &Signature> = BTreeMap::new();
    for signature in theirs.iter().chain(ours) {
        merged.insert(signature.key_name().as_str(), signature);
    }
    merged.into_values().cloned().collect()
}

/// A strong validator of a text.
pub fn tag_of(text: &[u8]) -> HeaderValue {
    let digest = HEXLOWER.encode(&Sha256::of(text).0[..16]);
    HeaderValue::from_str(&format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}
