//! An import: from another binary cache to a server of ours, each path after what it refers to.
//!
//! A NAR is sent as it lies there, under the name of its FileHash, by the protocol that stock Nix pushes with: the server
//! decodes and verifies it, and holds it against its narinfo, so that nothing has to be held here but a buffer. One whose
//! FileHash is not known is decoded on the way and sent bare, under its NarHash. The narinfo follows when all of a batch
//! have come. What the server has is not sent, so an import that was interrupted goes on by being run again; a path that
//! cannot be taken keeps none from coming but those that refer to it, which the server refuses.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::events::Events;
use super::origin::{Origin, OriginError};
use super::remote::{Remote, RemoteError};
use super::retry::{Patience, Stop};
use super::upload::{Trouble, UploadError};
use super::window::Window;
use crate::codec::Compression;
use crate::native::{MAX_MISSING, MissingRequest};
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;

/// Paths whose NARs are sent before their narinfos are.
const BATCH: usize = 64;

/// Everything that an import needs.
pub struct Import<'a> {
    /// Where from.
    pub origin: &'a Origin,
    /// Where to.
    pub remote: &'a Remote,
    /// Whether the signatures stay behind: the server makes its own.
    pub without_signatures: bool,
    /// NARs that are sent at once.
    pub jobs: usize,
    /// How long to go on when the server cannot.
    pub patience: Patience,
    /// Who may end it.
    pub stop: &'a Stop,
    /// Who watches.
    pub events: &'a dyn Events,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportSummary {
    /// How many paths came.
    pub imported: usize,
    /// How many were there already.
    pub present: usize,
    /// Bytes of the NARs that came, uncompressed.
    pub nar_bytes: u64,
    /// What did not come, and why.
    pub failed: Vec<NotImported>,
}

/// A path that did not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotImported {
    /// The hash of the path.
    pub path: String,
    /// Why.
    pub why: String,
}

/// Why nothing more is imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The cache that is imported from cannot be read.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The server does not take anything.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The server is for another store.
    #[error("the cache is of the store directory {theirs}, and what is imported is of {ours}")]
    StoreDir {
        /// That of what is imported.
        ours: String,
        /// That of the cache.
        theirs: String,
    },
    /// Somebody wanted us to stop.
    #[error("stopped; what has come stays, and importing again goes on from there")]
    Stopped,
}

/// Why one path did not come.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("stopped")]
    Stopped,
}

/// What came of a NAR, once something did.
type Sent = Option<Result<NarInfo, Failure>>;

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Remote(error) => Self::Remote(error),
            _ => Self::Stopped,
        }
    }
}

impl Import<'_> {
    /// Imports the closures of `roots`, or all that can be listed.
    pub fn run(&self, roots: &[StorePathHash]) -> Result<ImportSummary, ImportError> {
        let mut summary = ImportSummary::default();
        let all;
        let roots = if roots.is_empty() {
            all = self.origin.all()?;
            &all
        } else {
            roots
        };
        let mut note = |hash: StorePathHash, error: OriginError| {
            let (path, why) = (hash.to_string(), error.to_string());
            summary.failed.push(NotImported { path, why });
        };
        let order = self.origin.references_first(roots, &mut note)?;
        let missing = self.missing(&order, &mut summary)?;
        self.events.begin(missing.len(), 0);
        for batch in missing.chunks(BATCH) {
            if self.stop.is_stopped() {
                return Err(ImportError::Stopped);
            }
            self.send(batch, &mut summary)?;
        }
        Ok(summary)
    }

    /// Those of the paths that the server lacks, in their order.
    fn missing(
        &self,
        order: &[StorePathHash],
        summary: &mut ImportSummary,
    ) -> Result<Vec<StorePathHash>, ImportError> {
        let mut missing = Vec::new();
        for some in order.chunks(MAX_MISSING) {
            let request = MissingRequest { paths: some.to_vec(), ..MissingRequest::default() };
            let answer = self.trouble().again(|| self.remote.missing(&request)).map_err(ended)?;
            let ours = self.origin.store_dir().as_str();
            if answer.store_dir != ours {
                let theirs = answer.store_dir;
                return Err(ImportError::StoreDir { ours: ours.into(), theirs });
            }
            let lacks: HashSet<StorePathHash> = answer.missing.into_iter().collect();
            missing.extend(some.iter().filter(|hash| lacks.contains(hash)));
        }
        summary.present = order.len() - missing.len();
        Ok(missing)
    }

    /// Sends the NARs of a batch, several at once, and then their narinfos, each after those it refers to.
    fn send(
        &self,
        batch: &[StorePathHash],
        summary: &mut ImportSummary,
    ) -> Result<(), ImportError> {
        let next = AtomicUsize::new(0);
        let jobs: Vec<(&StorePathHash, Mutex<Sent>)> =
            batch.iter().map(|hash| (hash, Mutex::new(None))).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, batch.len()) {
                scope.spawn(|| {
                    while let Some((hash, sent)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                        && !self.stop.is_stopped()
                    {
                        *lock(sent) = Some(self.send_nar(**hash));
                    }
                });
            }
        });
        for (hash, result) in jobs {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            let published = match result {
                Some(Ok(narinfo)) => self.send_narinfo(&narinfo).map(|()| narinfo),
                Some(Err(failure)) => Err(failure),
                None => Err(Failure::Stopped),
            };
            match published {
                Ok(narinfo) => {
                    summary.imported += 1;
                    summary.nar_bytes += narinfo.info.nar_size;
                    self.events.uploaded(&narinfo.info);
                }
                Err(Failure::Stopped) => return Err(ImportError::Stopped),
                Err(Failure::Remote(error)) if !matches!(error, RemoteError::Refused { .. }) => {
                    return Err(error.into());
                }
                Err(failure) => {
                    let (path, why) = (hash.to_string(), failure.to_string());
                    self.events.note(&format!("{path} is not imported: {why}"));
                    summary.failed.push(NotImported { path, why });
                }
            }
        }
        Ok(())
    }

    /// Sends a NAR; gives the narinfo of it as it was sent.
    fn send_nar(&self, hash: StorePathHash) -> Result<NarInfo, Failure> {
        let not_there =
            || OriginError::NotThere { path: hash.to_string(), origin: self.origin.name().into() };
        let mut narinfo = self.origin.narinfo(hash)?.ok_or_else(not_there)?;
        let as_it_lies = narinfo.file_hash.and_then(|file_hash| {
            let compression: Compression = narinfo.compression.parse().ok()?;
            let name = format!("{}.nar{}", file_hash.to_nix32(), compression.extension());
            NarFileName::parse(&name)
        });
        let name = as_it_lies.unwrap_or_else(|| NarFileName::bare(narinfo.info.nar_hash));
        // What the origin said when its bytes broke off, which the server knows nothing of.
        let broken = Mutex::new(None);
        let sent = AtomicU64::new(0);
        let result = self.trouble().again(|| {
            let nar = match self.origin.nar(&narinfo) {
                Ok(nar) => nar,
                Err(error) => {
                    *lock(&broken) = Some(error);
                    return Err(self.remote.given_up());
                }
            };
            sent.store(0, Ordering::Relaxed);
            let counted = |body| Counted { body, sent: &sent };
            if as_it_lies.is_some() {
                let size = nar.size;
                return self.remote.put_nar_of_nix(name, size, &mut counted(nar.body));
            }
            match nar.decoded(narinfo.info.nar_size) {
                Ok(body) => {
                    let size = Some(narinfo.info.nar_size);
                    self.remote.put_nar_of_nix(name, size, &mut Counted { body, sent: &sent })
                }
                Err(error) => {
                    *lock(&broken) = Some(error);
                    Err(self.remote.given_up())
                }
            }
        });
        if let Some(error) = broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        result?;
        self.events.sent(sent.into_inner());
        narinfo.url = name.url();
        if self.without_signatures {
            narinfo.info.signatures.clear();
        }
        if as_it_lies.is_none() {
            narinfo.compression = Compression::None.name().into();
            narinfo.file_hash = Some(narinfo.info.nar_hash);
            narinfo.file_size = Some(narinfo.info.nar_size);
        }
        Ok(narinfo)
    }

    fn send_narinfo(&self, narinfo: &NarInfo) -> Result<(), Failure> {
        let text = narinfo.to_text(self.origin.store_dir());
        let hash = narinfo.info.path.hash();
        Ok(self.trouble().again(|| self.remote.put_narinfo_of_nix(hash, &text))?)
    }

    fn trouble(&self) -> Trouble<'_> {
        Trouble {
            patience: self.patience,
            stop: self.stop,
            events: self.events,
            window: Mutex::new(Window::new(self.jobs)),
            started: Instant::now(),
        }
    }
}

fn ended(error: UploadError) -> ImportError {
    match error {
        UploadError::Remote(error) => error.into(),
        _ => ImportError::Stopped,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what is read.
struct Counted<'a, R> {
    body: R,
    sent: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.body.read(buffer)?;
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
