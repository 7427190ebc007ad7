//! Baking: a NAR of the local store is compressed once, and from then on only sent.
//!
//! Baked files are `nar/<NarHash>.nar.zst` in a directory of their own, each with its FileHash in
//! `<NarHash>.sha256` beside it. They are derived: losing one loses nothing, so the least recently
//! used go first when they exceed their bound, and a full disk ends a bake, not a request.
//!
//! A path that was read uncompressed is baked behind the reader, on one thread of low priority: a
//! bake in the same pass would bind the reader to the speed of zstd, and hold a bake open as long as
//! the slowest client reads. (An argument, not a measurement: the one pass has not been built.) A path that is
//! asked for as zstd before it is baked is baked at once, and every client that asks for it
//! meanwhile is sent what is there so far.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use super::tree::{Expected, NarStream, ReadPool, StoreTree, TreeError};
use crate::bank::publish::{self, Staged};
use crate::bank::{BankError, open_regular};
use crate::codec::Hashed;
use crate::codec::seekable::{self, Encoder, Pool, Settings};
use crate::metrics::Metrics;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;
use crate::source::growing::{GrowingFile, Progress};
use crate::source::{SourceError, StoredFile};

/// Paths that wait to be baked; further ones wait for their next reader.
const QUEUE: usize = 4096;
/// Bakes that clients wait for; beyond it they are told to ask again.
const URGENT: usize = 256;
/// When baked files exceed their bound, they are removed down to this share of it.
const KEEP_PERCENT: u64 = 90;

/// How baking is done.
#[derive(Clone, Debug)]
pub struct BakeSettings {
    /// Where baked files are.
    pub directory: PathBuf,
    /// The zstd level.
    pub level: i32,
    /// Bytes that baked files may take.
    pub max_bytes: u64,
}

/// A baked NAR.
#[derive(Clone, Debug)]
pub struct Baked {
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, where it could be remembered.
    pub file_hash: Option<Sha256>,
}

/// Bakes, and keeps what is baked within its bound.
pub struct Bakery {
    settings: BakeSettings,
    encoding: Settings,
    readers: Arc<ReadPool>,
    metrics: Arc<Metrics>,
    baked: Mutex<HashMap<Sha256, Entry>>,
    jobs: Mutex<HashMap<Sha256, Arc<Job>>>,
    queue: SyncSender<(StoreTree, PathInfo)>,
    urgent: SyncSender<(Arc<Job>, StoreTree, PathInfo)>,
    listeners: RwLock<Vec<Listener>>,
}

/// Called with a path whose baked file has come or gone.
pub type Listener = Box<dyn Fn(StorePathHash) + Send + Sync>;

struct Entry {
    baked: Baked,
    last_used: Instant,
    path: Option<StorePathHash>,
}

/// A bake under way.
pub struct Job {
    /// The file that grows.
    pub file: Arc<GrowingFile>,
    /// Taken by the thread that bakes.
    staged: Mutex<Option<Staged>>,
}

impl Bakery {
    /// Opens the directory, takes stock of it, and starts the thread that bakes behind readers.
    pub fn start(
        settings: BakeSettings,
        readers: Arc<ReadPool>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        publish::make_directories(&settings.directory).map_err(io::Error::other)?;
        publish::sweep(&settings.directory).map_err(io::Error::other)?;
        let encoding = Settings::with_level(settings.level).map_err(io::Error::other)?;
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (queue, waiting) = sync_channel::<(StoreTree, PathInfo)>(QUEUE);
        let (urgent, jobs) = sync_channel::<(Arc<Job>, StoreTree, PathInfo)>(URGENT);
        let bakery = Arc::new(Self {
            baked: Mutex::new(take_stock(&settings.directory)?),
            settings,
            encoding,
            readers,
            metrics,
            jobs: Mutex::default(),
            queue,
            urgent,
            listeners: RwLock::default(),
        });
        bakery.make_room();
        let weak = Arc::downgrade(&bakery);
        std::thread::Builder::new().name("bake".into()).spawn(move || {
            // Behind whatever answers clients. Where the system refuses, it is merely not behind.
            let _ = rustix::process::nice(10);
            while let Ok((tree, info)) = waiting.recv() {
                let Some(bakery) = weak.upgrade() else { return };
                bakery.metrics.bake_queue.dec();
                if bakery.baked(info.nar_hash).is_some() {
                    continue;
                }
                match bakery.begin(info.nar_hash) {
                    Ok(job) => bakery.run(&job, &tree, &info, None),
                    Err(error) => tracing::warn!(path = %info.path, "not baked: {error}"),
                }
            }
        })?;
        let pool = Pool::new(threads)?;
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads.get() {
            let (weak, jobs, pool) = (Arc::downgrade(&bakery), Arc::clone(&jobs), pool.clone());
            std::thread::Builder::new().name("bake-now".into()).spawn(move || {
                loop {
                    // The lock is held while waiting: whoever has it is the next to be served.
                    let next = lock(&jobs).recv();
                    let (Ok((job, tree, info)), Some(bakery)) = (next, weak.upgrade()) else {
                        return;
                    };
                    bakery.run(&job, &tree, &info, Some(&pool));
                }
            })?;
        }
        Ok(bakery)
    }

    /// Has `listener` called whenever a path's baked file comes or goes.
    pub fn on_change(&self, listener: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// What is known of a baked NAR; `None` where it is not baked.
    pub fn baked(&self, nar_hash: Sha256) -> Option<Baked> {
        lock(&self.baked).get(&nar_hash).map(|entry| entry.baked.clone())
    }

    /// A baked file, with its size; `None` where it is not baked, or not whole any more.
    pub fn open(&self, nar_hash: Sha256) -> Result<Option<(File, u64)>, SourceError> {
        let Some(size) = self.touch(nar_hash) else { return Ok(None) };
        match open_regular(&self.file_of(nar_hash)) {
            Ok(Some((file, found))) if found == size => Ok(Some((file, size))),
            Ok(_) | Err(BankError::Damaged { .. }) => {
                // Somebody changed it by hand: it can be baked again.
                tracing::warn!("a baked file was not what was baked, and is baked again");
                self.forget(nar_hash);
                Ok(None)
            }
            Err(error) => Err(SourceError::Unavailable(error.to_string())),
        }
    }

    /// Has a path baked again whose file could not be read.
    pub fn could_not_be_read(&self, nar_hash: Sha256, error: &io::Error) {
        tracing::warn!("a baked file could not be read, and is baked again: {error}");
        self.forget(nar_hash);
    }

    /// Reads the content of a baked NAR, as `watch` has its file; `None` where it is not baked.
    pub fn reader(
        &self,
        nar_hash: Sha256,
        watch: impl FnOnce(File) -> StoredFile,
    ) -> Result<Option<seekable::Reader<StoredFile>>, SourceError> {
        let Some((file, size)) = self.open(nar_hash)? else { return Ok(None) };
        match seekable::Reader::open(watch(file), size) {
            Ok(reader) => Ok(Some(reader)),
            Err(error) => {
                tracing::warn!("a baked file is damaged, and is baked again: {error}");
                self.forget(nar_hash);
                Ok(None)
            }
        }
    }

    /// Has a path baked behind its readers, if there is room in the queue.
    pub fn bake_later(&self, tree: StoreTree, info: PathInfo) {
        if self.baked(info.nar_hash).is_some() {
            return;
        }
        match self.queue.try_send((tree, info)) {
            Ok(()) => self.metrics.bake_queue.inc(),
            Err(TrySendError::Full(_)) => self.metrics.bake("queue_full"),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Bakes a path on all cores, or joins the bake of it that is under way.
    ///
    /// Does not wait for the bake: it is followed with [`GrowingFile::watch`].
    pub fn bake_now(&self, tree: StoreTree, info: PathInfo) -> Result<Arc<Job>, SourceError> {
        if let Some(job) = lock(&self.jobs).get(&info.nar_hash) {
            return Ok(Arc::clone(job));
        }
        let job = self.begin(info.nar_hash)?;
        match self.urgent.try_send((Arc::clone(&job), tree, info)) {
            Ok(()) => Ok(job),
            Err(_) => {
                job.file.end(Progress::Failed("too many bakes at once".into()));
                lock(&self.jobs).retain(|_, known| !Arc::ptr_eq(known, &job));
                Err(SourceError::Unavailable("too many bakes at once".into()))
            }
        }
    }

    /// Enters a job in the list of those under way, or finds the one that is there.
    fn begin(&self, nar_hash: Sha256) -> Result<Arc<Job>, SourceError> {
        let staged = Staged::create(&self.settings.directory)
            .map_err(|error| SourceError::Unavailable(error.to_string()))?;
        let file = staged
            .file()
            .try_clone()
            .map_err(|error| SourceError::Unavailable(error.to_string()))?;
        let file = Arc::new(GrowingFile::new(file));
        let job = Arc::new(Job { file, staged: Mutex::new(Some(staged)) });
        Ok(Arc::clone(lock(&self.jobs).entry(nar_hash).or_insert(job)))
    }

    /// Bakes; whatever comes of it is in the job's progress, the metrics and, if bad, the log.
    fn run(&self, job: &Job, tree: &StoreTree, info: &PathInfo, pool: Option<&Pool>) {
        // Who finds the file taken has joined a bake that another thread runs.
        let Some(staged) = lock(&job.staged).take() else { return };
        let (progress, result) = match self.bake(job, staged, tree, info, pool) {
            Ok(baked) => {
                let size = baked.size;
                self.remember(info, baked);
                (Progress::Done(size), "ok")
            }
            Err(failure) => {
                tracing::warn!(path = %info.path, "not baked: {failure}");
                let result = failure.label();
                (Progress::Failed(failure.to_string().into()), result)
            }
        };
        self.metrics.bake(result);
        job.file.end(progress);
        lock(&self.jobs).remove(&info.nar_hash);
    }

    fn bake(
        &self,
        job: &Job,
        staged: Staged,
        tree: &StoreTree,
        info: &PathInfo,
        pool: Option<&Pool>,
    ) -> Result<Baked, Failure> {
        let writer = Hashed::new(&*job.file);
        let mut encoder = match pool {
            Some(pool) => Encoder::with_pool(writer, self.encoding, pool.clone()),
            None => Encoder::new(writer, self.encoding)?,
        };
        let expected = Expected { nar_hash: info.nar_hash, nar_size: info.nar_size };
        let mut nar = NarStream::start(&self.readers, tree.clone(), None, Some(expected));
        while let Some(chunk) = nar.next_blocking() {
            encoder.write_all(&chunk?)?;
        }
        let (summary, writer) = encoder.finish()?;
        let (file_hash, _) = writer.finish();
        let name = self.file_of(info.nar_hash);
        let hash_file = Staged::create(&self.settings.directory)?;
        hash_file.file().write_all(file_hash.to_nix32().as_bytes())?;
        hash_file.publish(&hash_name(&name))?;
        staged.publish(&name)?;
        Ok(Baked { size: summary.compressed_size, file_hash: Some(file_hash) })
    }

    fn remember(&self, info: &PathInfo, baked: Baked) {
        let entry = Entry { baked, last_used: Instant::now(), path: Some(info.path.hash()) };
        lock(&self.baked).insert(info.nar_hash, entry);
        self.tell(info.path.hash());
        self.make_room();
    }

    /// Removes the least recently used files while they take more than their bound.
    fn make_room(&self) {
        let mut baked = lock(&self.baked);
        let mut bytes: u64 = baked.values().map(|entry| entry.baked.size).sum();
        let mut leaving = Vec::new();
        if bytes > self.settings.max_bytes {
            let mut by_age: Vec<_> =
                baked.iter().map(|(hash, entry)| (entry.last_used, *hash)).collect();
            by_age.sort_unstable_by_key(|(last_used, _)| *last_used);
            for (_, hash) in by_age {
                if bytes <= self.settings.max_bytes / 100 * KEEP_PERCENT {
                    break;
                }
                if let Some(entry) = baked.remove(&hash) {
                    bytes -= entry.baked.size;
                    leaving.push((hash, entry.path));
                }
            }
        }
        drop(baked);
        self.metrics.baked_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        for (hash, path) in leaving {
            self.remove_files(hash);
            if let Some(path) = path {
                self.tell(path);
            }
        }
    }

    fn forget(&self, nar_hash: Sha256) {
        let path = lock(&self.baked).remove(&nar_hash).and_then(|entry| entry.path);
        self.remove_files(nar_hash);
        if let Some(path) = path {
            self.tell(path);
        }
    }

    fn remove_files(&self, nar_hash: Sha256) {
        let name = self.file_of(nar_hash);
        for file in [&name, &hash_name(&name)] {
            if let Err(error) = publish::remove(file) {
                tracing::warn!("a baked file could not be removed: {error}");
            }
        }
    }

    fn touch(&self, nar_hash: Sha256) -> Option<u64> {
        let mut baked = lock(&self.baked);
        let entry = baked.get_mut(&nar_hash)?;
        entry.last_used = Instant::now();
        Some(entry.baked.size)
    }

    fn tell(&self, path: StorePathHash) {
        for listener in &*self.listeners.read().unwrap_or_else(PoisonError::into_inner) {
            listener(path);
        }
    }

    fn file_of(&self, nar_hash: Sha256) -> PathBuf {
        self.settings.directory.join(NarFileName::zstd(nar_hash).url())
    }
}

/// Where the FileHash of a baked file is.
fn hash_name(file: &Path) -> PathBuf {
    file.with_extension("sha256")
}

/// Finds what earlier processes baked. What was used when is not known: the file's age stands in.
fn take_stock(directory: &Path) -> io::Result<HashMap<Sha256, Entry>> {
    let now = Instant::now();
    let mut baked = HashMap::new();
    for entry in std::fs::read_dir(directory.join("nar"))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(NarFileName::parse) else { continue };
        let metadata = entry.metadata()?;
        let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
        let file_hash = std::fs::read_to_string(hash_name(&entry.path()))
            .ok()
            .and_then(|text| Sha256::from_nix32(text.trim()));
        let last_used = now.checked_sub(age.unwrap_or_default()).unwrap_or(now);
        let found = Baked { size: metadata.len(), file_hash };
        baked.insert(name.hash, Entry { baked: found, last_used, path: None });
    }
    Ok(baked)
}

/// Why there is no baked file.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{0}")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Publish(#[from] BankError),
}

impl Failure {
    /// The label of the metric.
    fn label(&self) -> &'static str {
        match self {
            Self::Tree(TreeError::HashMismatch { .. }) => "hash_mismatch",
            Self::Tree(_) => "unreadable",
            Self::Write(_) | Self::Publish(_) => "not_written",
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
