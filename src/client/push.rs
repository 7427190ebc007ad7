//! A push: from some paths to a server that has them with everything they refer to.
//!
//! 1. the roots are kept from the collector, and their closure is read from the Nix database;
//! 2. one question tells which of it are missing there;
//! 3. what one of the server's upstreams signed is left out (the signature is verified, and shown to
//!    the server as a proof);
//! 4. the NARs of the rest are uploaded, the largest first, as many at once as is of use;
//! 5. they become visible, references first, all at once where one commit may hold them.
//!
//! Every step may be repeated, so a push that was interrupted is gone on with by pushing again. A path
//! that cannot be sent does not keep the others from being sent, but nothing becomes visible that
//! refers to it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::closure::{ClosureError, LocalPaths};
use super::events::Events;
use super::remote::{Remote, RemoteError};
use super::retry::{Patience, Stop};
use super::roots::{TempRoots, daemon_socket};
use super::upload::{Trouble, UploadError, Uploader};
use super::window::Window;
use crate::codec::seekable;
use crate::native::{
    CommitRequest, MAX_COMMIT, MAX_JSON, MAX_MISSING, MissingRequest, MissingResponse, Refusals,
};
use crate::nix::hash::Sha256;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::fingerprint;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::sign::PublicKey;
use crate::source::local::tree::StoreHandle;

/// How much the server is asked to hash before it answers.
const MAX_VERIFY: u64 = 4 << 30;
/// How often a commit that is refused for want of a NAR or a reference is tried.
const ROUNDS: usize = 3;

/// What a push does.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// How hard NARs are compressed.
    pub level: i32,
    /// Uploads at once, at most.
    pub jobs: usize,
    /// Also push what an upstream of the server signed.
    pub all: bool,
    /// Have the server hash what it has, and send again what is wrong.
    pub repair: bool,
    /// Only find out what would be sent.
    pub dry_run: bool,
    /// How long to go on when the server cannot.
    pub patience: Patience,
    /// The nix-daemon's socket, if it is not at its usual place.
    pub daemon_socket: Option<PathBuf>,
}

impl Default for PushSettings {
    fn default() -> Self {
        Self {
            level: seekable::LEVEL,
            jobs: 16,
            all: false,
            repair: false,
            dry_run: false,
            patience: Patience { retry_for: Some(Duration::from_secs(600)) },
            daemon_socket: None,
        }
    }
}

/// What came of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PushSummary {
    /// What is visible now and was not; in a dry run what would have been sent.
    pub pushed: Vec<StorePath>,
    /// How many paths were there.
    pub present: usize,
    /// How many paths were left to an upstream.
    pub upstream: usize,
    /// Bytes of the pushed NARs, uncompressed.
    pub nar_bytes: u64,
    /// Bytes that were sent for them.
    pub sent_bytes: u64,
    /// Whether nothing was sent, as was asked.
    pub dry_run: bool,
}

/// Why not all is there.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The paths are not there to be sent.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// The server could not be asked, or did not do it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The server is for another store.
    #[error("the cache is of the store directory {theirs}, and this store's is {ours}")]
    StoreDir {
        /// That of the local store.
        ours: String,
        /// That of the cache.
        theirs: String,
    },
    /// Some paths could not be sent; the others were.
    #[error("{}", first_of(.0))]
    Paths(Vec<(StorePath, UploadError)>),
    /// The store directory cannot be opened, or no threads can be started.
    #[error("{what}: {source}")]
    Local {
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Compression settings that cannot be.
    #[error(transparent)]
    Settings(#[from] seekable::SettingsError),
    /// Somebody wanted us to stop.
    #[error("stopped; what was sent is kept, and pushing again goes on from there")]
    Stopped,
}

impl PushError {
    /// Which paths are to blame, each with the reason; none where it is not about a path.
    pub fn culprits(&self) -> Vec<(StorePathHash, String)> {
        match self {
            Self::Closure(ClosureError::Invalid(path)) => vec![(path.hash(), self.to_string())],
            Self::Paths(failed) => {
                // What the server keeps losing it may keep one day.
                let about = failed.iter().filter(|(_, error)| {
                    error.is_about_the_path() && !matches!(error, UploadError::Lost)
                });
                about.map(|(path, error)| (path.hash(), error.to_string())).collect()
            }
            Self::Remote(RemoteError::Refused { refusals, .. }) => {
                let named = refusals.errors.iter();
                named.filter_map(|refusal| Some((refusal.path?, refusal.reason.clone()))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Remote(error) => error.retry_after(),
            Self::Paths(failed) => failed.iter().find_map(|(_, error)| match error {
                UploadError::Remote(error) => error.retry_after(),
                _ => None,
            }),
            _ => None,
        }
    }
}

fn first_of(failed: &[(StorePath, UploadError)]) -> String {
    let more = match failed.len() {
        0 | 1 => String::new(),
        many => format!(" (and {} more paths)", many - 1),
    };
    match failed.first() {
        Some((path, error)) => format!("{path}: {error}{more}"),
        None => "some paths failed".into(),
    }
}

impl From<UploadError> for PushError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Remote(error) => Self::Remote(error),
            UploadError::Stopped => Self::Stopped,
            other => Self::Local { what: "cannot push", source: io::Error::other(other) },
        }
    }
}

/// Everything that a push needs.
pub struct Push<'a> {
    /// Where to.
    pub remote: &'a Remote,
    /// Where from.
    pub paths: &'a LocalPaths,
    /// How.
    pub settings: &'a PushSettings,
    /// Who may end it.
    pub stop: &'a Stop,
    /// Who watches.
    pub events: &'a dyn Events,
}

/// The closure, sorted by what is to be done.
struct Plan<'a> {
    /// To be sent and to become visible, references first.
    send: Vec<&'a PathInfo>,
    /// Missing there, but signed by an upstream.
    upstream: HashMap<&'a StorePath, &'a PathInfo>,
    present: usize,
}

impl Push<'_> {
    /// Pushes the closures of `roots`; when it returns without an error, all of it is acknowledged.
    pub fn run(&self, roots: &[StorePath]) -> Result<PushSummary, PushError> {
        // Before the closure is read, so that what was valid then is there until the end.
        let _held = if self.settings.dry_run { None } else { self.hold(roots) };
        let closure = self.paths.closure(roots)?;
        let mut summary = PushSummary { dry_run: self.settings.dry_run, ..PushSummary::default() };
        if closure.is_empty() {
            return Ok(summary);
        }
        let mut uploaded = HashSet::new();
        let mut round = 1;
        loop {
            let plan = self.plan(&closure)?;
            if round == 1 {
                summary.present = plan.present;
                summary.upstream = plan.upstream.len();
            }
            if plan.send.is_empty() || self.settings.dry_run {
                if self.settings.dry_run {
                    summary.nar_bytes = plan.send.iter().map(|info| info.nar_size).sum();
                    summary.pushed = plan.send.iter().map(|info| info.path.clone()).collect();
                }
                return Ok(summary);
            }
            if round == 1 {
                uploaded.extend(self.waiting(&plan.send)?);
            }
            summary.sent_bytes += self.upload(&plan.send, &mut uploaded)?;
            match self.commit(&plan, &mut summary) {
                Ok(()) => return Ok(summary),
                Err(PushError::Remote(RemoteError::Refused { refusals, .. }))
                    if round < ROUNDS && is_about_what_is_missing(&refusals) =>
                {
                    // What was there has gone meanwhile: these are sent once more.
                    let named: HashSet<_> =
                        refusals.errors.iter().filter_map(|refusal| refusal.path).collect();
                    for info in plan.send.iter().filter(|info| named.contains(&info.path.hash())) {
                        uploaded.remove(&info.nar_hash);
                    }
                    round += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn hold(&self, roots: &[StorePath]) -> Option<TempRoots> {
        let layout = self.paths.layout();
        let socket = daemon_socket(layout, self.settings.daemon_socket.clone());
        match TempRoots::hold(layout, &socket, roots) {
            Ok(held) => Some(held),
            Err(error) => {
                self.events.note(&format!(
                    "the paths are not kept from a garbage collection meanwhile: {error}"
                ));
                None
            }
        }
    }

    fn plan<'c>(&self, closure: &'c [PathInfo]) -> Result<Plan<'c>, PushError> {
        let store_dir = &self.paths.layout().store_dir;
        let mut missing = HashSet::new();
        let mut keys = Vec::new();
        for paths in questions(closure, self.settings.repair) {
            let request = MissingRequest { paths, verify: self.settings.repair, nars: Vec::new() };
            let answer = self.trouble().again(|| self.remote.missing(&request))?;
            let MissingResponse { missing: some, store_dir: theirs, upstream_keys, .. } = answer;
            if theirs != store_dir.as_str() {
                return Err(PushError::StoreDir { ours: store_dir.to_string(), theirs });
            }
            missing.extend(some);
            keys = upstream_keys.iter().filter_map(|key| PublicKey::parse(key)).collect();
        }
        let mut plan = Plan { send: Vec::new(), upstream: HashMap::new(), present: 0 };
        for info in closure {
            if !missing.contains(&info.path.hash()) {
                plan.present += 1;
            } else if !self.settings.all && is_signed(info, &keys, store_dir) {
                plan.upstream.insert(&info.path, info);
            } else {
                plan.send.push(info);
            }
        }
        Ok(plan)
    }

    /// The NARs that an earlier push has sent, and did not come to commit.
    fn waiting(&self, infos: &[&PathInfo]) -> Result<Vec<Sha256>, PushError> {
        let mut waiting = Vec::new();
        for some in infos.chunks(MAX_MISSING) {
            let nars = some.iter().map(|info| info.nar_hash).collect();
            let request = MissingRequest { nars, ..MissingRequest::default() };
            waiting.extend(self.trouble().again(|| self.remote.missing(&request))?.waiting);
        }
        Ok(waiting)
    }

    /// Sends the NARs of `infos`, but for those that went already.
    fn upload(
        &self,
        infos: &[&PathInfo],
        uploaded: &mut HashSet<Sha256>,
    ) -> Result<u64, PushError> {
        let mut queue: Vec<&PathInfo> = Vec::new();
        let mut nars = HashSet::new();
        for info in infos {
            // Two paths may have one NAR.
            if !uploaded.contains(&info.nar_hash) && nars.insert(info.nar_hash) {
                queue.push(info);
            }
        }
        self.events.begin(queue.len(), queue.iter().map(|info| info.nar_size).sum());
        queue.sort_by_key(|info| std::cmp::Reverse(info.nar_size));
        if queue.is_empty() {
            return Ok(0);
        }
        let local = |what| move |source| PushError::Local { what, source };
        let store = StoreHandle::open(&self.paths.layout().real_dir)
            .map_err(local("the store directory cannot be opened"))?;
        let settings = seekable::Settings::with_level(self.settings.level)?;
        let level = self.settings.level;
        let uploader = Uploader::start(self.remote, store, settings, level, self.trouble())
            .map_err(local("threads cannot be started"))?;
        self.run_uploads(&uploader, queue.into(), uploaded)
    }

    fn run_uploads(
        &self,
        uploader: &Uploader<'_>,
        mut queue: VecDeque<&PathInfo>,
        uploaded: &mut HashSet<Sha256>,
    ) -> Result<u64, PushError> {
        let mut sent = 0;
        let mut failed = Vec::new();
        let mut gave_up: Option<PushError> = None;
        std::thread::scope(|scope| {
            let (done, results) = channel();
            let mut running = 0;
            loop {
                while running < uploader.trouble.window().limit()
                    && gave_up.is_none()
                    && !self.stop.is_stopped()
                    && let Some(info) = queue.pop_front()
                {
                    let done = done.clone();
                    let spawned = std::thread::Builder::new().name("upload".into()).spawn_scoped(
                        scope,
                        move || {
                            let upload = AssertUnwindSafe(|| uploader.upload(info));
                            let result = catch_unwind(upload).unwrap_or_else(|_| {
                                let panicked = io::Error::other("the uploading thread panicked");
                                Err(UploadError::Compress(panicked))
                            });
                            // Whoever waits for it is there until all are done.
                            let _ = done.send((info, result));
                        },
                    );
                    match spawned {
                        Ok(_) => running += 1,
                        Err(source) => {
                            gave_up =
                                Some(PushError::Local { what: "no thread for an upload", source });
                        }
                    }
                }
                if running == 0 {
                    break;
                }
                let Ok((info, result)) = results.recv() else { break };
                running -= 1;
                match result {
                    Ok(bytes) => {
                        let trouble = &uploader.trouble;
                        trouble.window().finished(bytes, trouble.started.elapsed());
                        sent += bytes;
                        uploaded.insert(info.nar_hash);
                        self.events.uploaded(info);
                    }
                    Err(error) if error.is_about_the_path() => {
                        self.events.failed(info, &error.to_string());
                        failed.push((info.path.clone(), error));
                    }
                    // It is about the server: no other upload would fare better.
                    Err(error) => gave_up = gave_up.take().or_else(|| Some(error.into())),
                }
            }
        });
        match gave_up {
            Some(error) => Err(error),
            None if !failed.is_empty() => Err(PushError::Paths(failed)),
            None if !queue.is_empty() => Err(PushError::Stopped),
            None => Ok(sent),
        }
    }

    fn commit(&self, plan: &Plan<'_>, summary: &mut PushSummary) -> Result<(), PushError> {
        for paths in batches(&plan.send) {
            let inside: HashSet<&StorePath> = paths.iter().map(|info| &info.path).collect();
            let mut proofs = HashMap::new();
            for reference in paths.iter().flat_map(|info| &info.references) {
                if let Some(proof) = plan.upstream.get(reference)
                    && !inside.contains(reference)
                {
                    proofs.insert(reference, (*proof).clone());
                }
            }
            let mut upstream: Vec<PathInfo> = proofs.into_values().collect();
            upstream.sort_by(|one, other| one.path.cmp(&other.path));
            let request = CommitRequest {
                paths: paths.iter().map(|info| (*info).clone()).collect(),
                upstream,
            };
            self.trouble().again(|| self.remote.commit(&request))?;
            summary.nar_bytes += paths.iter().map(|info| info.nar_size).sum::<u64>();
            summary.pushed.extend(paths.iter().map(|info| info.path.clone()));
        }
        Ok(())
    }

    fn trouble(&self) -> Trouble<'_> {
        Trouble {
            patience: self.settings.patience,
            stop: self.stop,
            events: self.events,
            window: Mutex::new(Window::new(self.settings.jobs)),
            started: Instant::now(),
        }
    }
}

/// The questions that cover a closure: one, but for very many paths, or where the server has to read
/// all it has of them before it answers.
fn questions(closure: &[PathInfo], verify: bool) -> Vec<Vec<StorePathHash>> {
    let mut questions = vec![Vec::new()];
    let mut bytes = 0;
    for info in closure {
        let Some(last) = questions.last_mut() else { break };
        let is_full = last.len() == MAX_MISSING || (verify && bytes > MAX_VERIFY);
        if is_full {
            bytes = 0;
            questions.push(vec![info.path.hash()]);
        } else {
            last.push(info.path.hash());
        }
        bytes += info.nar_size;
    }
    questions
}

/// As few commits as there may be, in the order given.
fn batches<'a, 'c>(infos: &'a [&'c PathInfo]) -> Vec<&'a [&'c PathInfo]> {
    let mut batches = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (position, info) in infos.iter().enumerate() {
        // References weigh twice: each may need a proof.
        let weight = 1024 + 512 * info.references.len() + 128 * info.signatures.len();
        if position - begin == MAX_COMMIT || (position > begin && bytes + weight > MAX_JSON) {
            batches.push(&infos[begin..position]);
            (begin, bytes) = (position, 0);
        }
        bytes += weight;
    }
    if begin < infos.len() {
        batches.push(&infos[begin..]);
    }
    batches
}

/// Whether one of `keys` signed this path for real.
fn is_signed(info: &PathInfo, keys: &[PublicKey], store_dir: &StoreDir) -> bool {
    if keys.is_empty() || info.signatures.is_empty() {
        return false;
    }
    let text = fingerprint(store_dir, info);
    info.signatures.iter().any(|signature| keys.iter().any(|key| key.verifies(&text, signature)))
}

/// Whether a commit was refused for want of something that may have gone since it was asked for.
fn is_about_what_is_missing(refusals: &Refusals) -> bool {
    refusals.errors.iter().any(|refusal| refusal.send_again)
}

#[cfg(test)]
mod tests;
