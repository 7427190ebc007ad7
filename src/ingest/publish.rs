//! From a NAR that waits and what is said of it to a path that is there.
//!
//! The lock of a path is held from the look at what is there to the end, so that of two who push the
//! same path at once one publishes and the other finds it published.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::check::{Policy, check_facts, check_file};
use super::collect::Gate;
use super::content::Claim;
use super::facts::Facts;
use super::nar::NarLimits;
use super::quota::Quota;
use super::refusal::PushError;
use super::reread::Examined;
use super::{NoRoom, Pusher, Recorder};
use crate::bank::publish::commit::NewPath;
use crate::bank::publish::pending::Durability;
use crate::bank::{Bank, BuildId};
use crate::codec::seekable::Pool;
use crate::metrics::ingest::{PushMetrics, Stage};
use crate::nix::nar::Listing;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::Signature;
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::source::cache::{Cache, merge};
use crate::source::{Source, SourceError};

/// Locks, each for a 256th of all paths.
const STRIPES: usize = 256;
/// Missing references that a message names.
const MISSING_SHOWN: usize = 5;

/// What takes pushes for one cache.
pub struct Ingest {
    pub(super) cache: Arc<Cache>,
    pub(super) source: Arc<Source>,
    pub(super) bank: Arc<Bank>,
    pub(super) policy: Policy,
    pub(super) limits: NarLimits,
    pub(super) pool: Pool,
    pub(super) quota: Arc<Quota>,
    recorder: Option<Arc<Recorder>>,
    pub(super) pushes: PushMetrics,
    pub(super) stripes: Vec<Mutex<()>>,
    /// The NARs that this process took or read, and whether they are durable: those of an earlier
    /// one are read again before they are believed, because not all of them were synced.
    fresh: Mutex<HashMap<NarFileName, Fresh>>,
    /// Held while the files of a NAR that waits are written, removed or compared. Taken after the
    /// lock of a path.
    waiting: Vec<Mutex<()>>,
    pub(super) uploads: super::upload::Uploads,
    pub(super) twins: super::share::Twins,
    pub(super) no_room: Arc<NoRoom>,
    pub(super) gate: Gate,
    /// What says of a path that is not here that clients get it here all the same.
    pub(super) offers: OnceLock<Offers>,
}

/// Says whether a path that is not here is offered from elsewhere, and has it fetched then. Blocks.
pub(super) type Offers = Box<dyn Fn(&StorePath) -> bool + Send + Sync>;

/// What this process knows of a NAR that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    /// Whether it is durable.
    pub(super) durability: Durability,
    /// When it came, or somebody looked for it: soon it may be published.
    pub(super) asked: Instant,
}

impl Fresh {
    pub(super) fn now(durability: Durability) -> Self {
        Self { durability, asked: Instant::now() }
    }
}

/// Where pushes go.
pub struct Place {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The source of the cache that is its own bank.
    pub source: Arc<Source>,
    /// That bank.
    pub bank: Arc<Bank>,
}

/// What became of a narinfo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The path is there now.
    Published,
    /// It was there already.
    Present,
}

/// What is there of a path.
pub(super) enum There {
    Nothing,
    Whole(Box<NarInfo>),
    Damaged,
}

/// A path that was found good, before anything is written.
pub(super) enum Checked {
    New {
        path: Box<NewPath>,
        /// Whether its NAR waits only because this path was looked at.
        taken_again: bool,
    },
    Present,
    /// It is there, and gains signatures.
    MoreSignatures(String),
}

impl Ingest {
    /// Takes pushes into `place`.
    pub fn new(
        place: Place,
        policy: Policy,
        limits: NarLimits,
        quota: Quota,
        pool: Pool,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let Place { cache, source, bank } = place;
        let pushes = cache.metrics().ingest.of(&cache.name);
        Self {
            pushes,
            cache,
            source,
            bank,
            policy,
            limits,
            pool,
            quota: Arc::new(quota),
            recorder,
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            fresh: Mutex::default(),
            waiting: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            uploads: super::upload::Uploads::default(),
            twins: super::share::Twins::default(),
            no_room: Arc::default(),
            gate: Gate::default(),
            offers: OnceLock::new(),
        }
    }

    /// Whether pushes are refused for want of room.
    pub fn no_room(&self) -> Arc<NoRoom> {
        Arc::clone(&self.no_room)
    }

    /// The keys of upstreams, whose paths need not be pushed.
    pub fn upstream_keys(&self) -> Vec<String> {
        self.policy.upstream_keys.iter().map(ToString::to_string).collect()
    }

    /// The store directory of the cache.
    pub fn store_dir(&self) -> &StoreDir {
        &self.cache.info.store_dir
    }

    /// Takes a narinfo, whose NAR has come before, and makes the path visible. Blocks.
    pub fn put_narinfo(
        &self,
        hash: StorePathHash,
        text: &[u8],
        pusher: &Pusher,
    ) -> Result<Outcome, PushError> {
        let narinfo = NarInfo::parse(text, self.store_dir())?;
        if narinfo.info.path.hash() != hash {
            return Err(PushError::OtherPath { ours: hash, theirs: narinfo.info.path });
        }
        self.admitted(|| self.publish_narinfo(&narinfo, pusher))
    }

    fn publish_narinfo(&self, narinfo: &NarInfo, pusher: &Pusher) -> Result<Outcome, PushError> {
        let hash = narinfo.info.path.hash();
        let _publishing = self.publishing();
        let _lock = self.lock(hash);
        self.settle()?;
        let name = narinfo.nar_file();
        let find = || {
            let facts = match name {
                Some(name) => self.pending(name)?,
                None => None,
            };
            if let Some((_, facts)) = &facts {
                check_file(narinfo, facts)?;
            }
            Ok(facts)
        };
        let checked = match self.check(&narinfo.info, &find, &|_| false) {
            // Nothing of the one that lost remains. What is refused for another reason may be said
            // once more, rightly, and its NAR waits for that.
            Err(error @ PushError::Conflict { .. }) => {
                self.note_refusal(&error, pusher);
                if let Some(name) = name {
                    self.let_go(name)?;
                }
                return Err(error);
            }
            checked => checked?,
        };
        let outcome = match checked {
            Checked::New { path, .. } => {
                let paths = std::slice::from_ref(&*path);
                self.rely_on_all_of(paths);
                let known = self.fresh().get(&path.nar.0).map(|nar| nar.durability);
                let began = Instant::now();
                let written = match known {
                    Some(Durability::Now) => self.bank.publish_path(&path),
                    _ => self.bank.commit(paths),
                };
                written.inspect_err(|_| self.forget_placed(paths))?;
                self.took(Stage::Publish, began);
                self.published(paths);
                self.note_push(&narinfo.info, pusher);
                Outcome::Published
            }
            Checked::MoreSignatures(text) => {
                self.bank.replace_narinfo(hash, &text)?;
                self.cache.changed(&self.source);
                Outcome::Present
            }
            Checked::Present => Outcome::Present,
        };
        if let (Some(recorder), Some(name)) = (&self.recorder, name)
            && name != NarFileName::bare(narinfo.info.nar_hash)
            && name != NarFileName::zstd(narinfo.info.nar_hash)
        {
            recorder.named(&self.cache.name, name, narinfo);
        }
        if outcome == Outcome::Present
            && let Some(name) = name
        {
            self.let_go(name)?;
        }
        Ok(outcome)
    }

    /// Holds a path against everything that can be known of it. `find` looks for its NAR among those
    /// that wait; `elsewhere` says of a reference that it need not be here yet.
    pub(super) fn check(
        &self,
        info: &PathInfo,
        find: &dyn Fn() -> Result<Option<(NarFileName, Facts)>, PushError>,
        elsewhere: &dyn Fn(&StorePath) -> bool,
    ) -> Result<Checked, PushError> {
        let there = self.there(info.path.hash())?;
        if let There::Whole(stored) = &there {
            self.rely_on(info.path.hash());
            return self.check_present(info, stored);
        }
        let replace = matches!(there, There::Damaged);
        let waiting = find()?;
        let taken_again = waiting.is_none();
        let found = match waiting {
            Some(found) => Some(found),
            // Another path has brought the same NAR.
            None => self.take_again(NarFileName::zstd(info.nar_hash), info.nar_hash)?,
        };
        let Some((waits, facts)) = found else {
            return Err(PushError::NoNar { path: info.path.clone() });
        };
        match self.check_new(info, waits, &facts, replace, elsewhere) {
            Ok(path) => Ok(Checked::New { path: Box::new(path), taken_again }),
            Err(error) => {
                if taken_again {
                    self.let_go(waits)?;
                }
                Err(error)
            }
        }
    }

    /// A path that is not here, whose NAR waits.
    fn check_new(
        &self,
        info: &PathInfo,
        waits: NarFileName,
        facts: &Facts,
        replace: bool,
        elsewhere: &dyn Fn(&StorePath) -> bool,
    ) -> Result<NewPath, PushError> {
        let checked = self.check_info(info, waits, facts, false)?;
        self.check_references(info, elsewhere)?;
        self.new_path(checked, waits, facts, replace)
    }

    /// What is kept of what is said of a path, held against its NAR. `is_vouched_for` if it is taken without a
    /// signature by a key that pushers are trusted by.
    pub(super) fn check_info(
        &self,
        info: &PathInfo,
        waits: NarFileName,
        facts: &Facts,
        is_vouched_for: bool,
    ) -> Result<PathInfo, PushError> {
        check_facts(info, facts)?;
        self.check_deriver(info)?;
        let claim = self.check_content_address(info, waits)?;
        let is_trusted = is_vouched_for || claim == Claim::Proved;
        let own = self.cache.keys().public();
        let signatures = self.policy.judge(self.store_dir(), info, &own, is_trusted)?;
        let ca = info.ca.clone().filter(|_| claim != Claim::Unverified);
        Ok(PathInfo { signatures, ca, ..info.clone() })
    }

    /// A path that is here: it may gain signatures, and nothing else of it changes.
    fn check_present(&self, info: &PathInfo, stored: &NarInfo) -> Result<Checked, PushError> {
        let ours = &stored.info;
        if ours.nar_hash != info.nar_hash {
            return Err(PushError::Conflict {
                path: info.path.clone(),
                ours: ours.nar_hash,
                theirs: info.nar_hash,
            });
        }
        let names =
            |paths: &[StorePath]| paths.iter().map(StorePath::as_str).collect::<Vec<_>>().join(" ");
        for (field, declared, computed) in [
            ("NarSize", info.nar_size.to_string(), ours.nar_size.to_string()),
            ("StorePath", info.path.to_string(), ours.path.to_string()),
            ("References", names(&sorted(&info.references)), names(&sorted(&ours.references))),
        ] {
            if declared != computed {
                let path = info.path.clone();
                return Err(PushError::Mismatch { path, field, declared, computed });
            }
        }
        let own = self.cache.keys().public();
        // What is here was taken, whoever says it again.
        let kept = self.policy.judge(self.store_dir(), info, &own, true)?;
        let merged = merge(&ours.signatures, &kept);
        let is_new = |signature: &Signature| !ours.signatures.contains(signature);
        if !merged.iter().any(is_new) {
            return Ok(Checked::Present);
        }
        let mut narinfo = stored.clone();
        narinfo.info.signatures = merged;
        narinfo.info.signatures.truncate(crate::nix::narinfo::MAX_SIGNATURES);
        Ok(Checked::MoreSignatures(narinfo.to_stored_text(self.store_dir())))
    }

    fn check_references(
        &self,
        info: &PathInfo,
        elsewhere: &dyn Fn(&StorePath) -> bool,
    ) -> Result<(), PushError> {
        let mut missing = Vec::new();
        for reference in &info.references {
            if reference == &info.path || elsewhere(reference) {
                continue;
            }
            // Stock Nix asks with GET what it need not send, and what is offered from elsewhere is an answer.
            let is_offered = || self.offers.get().is_some_and(|offers| offers(reference));
            if !self.has(reference)? && !is_offered() {
                missing.push(reference.as_str());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let count = missing.len();
        missing.truncate(MISSING_SHOWN);
        Err(PushError::MissingReferences {
            path: info.path.clone(),
            count,
            some: missing.join(" "),
        })
    }

    /// What is written for a path.
    pub(super) fn new_path(
        &self,
        info: PathInfo,
        waits: NarFileName,
        facts: &Facts,
        replace: bool,
    ) -> Result<NewPath, PushError> {
        let target = NarFileName::zstd(info.nar_hash);
        // Another path may have brought the same NAR, in a file that an older release compressed.
        // Where it is good it stays, and the narinfo is of that file.
        let (facts, replace_nar) = match self.examine(target)? {
            Examined::Nothing => (facts.clone(), false),
            Examined::Good(theirs) if theirs.nar_hash == info.nar_hash => (*theirs, false),
            Examined::Good(_) | Examined::Bad => (facts.clone(), true),
        };
        let listing = self.bank.pending_listing(waits)?;
        let debug_info = listing.as_deref().map(|text| debug_info(text, target));
        let hash = info.path.hash();
        let narinfo = NarInfo {
            info,
            url: target.url(),
            compression: "zstd".into(),
            file_hash: Some(facts.stored_hash),
            file_size: Some(facts.stored_size),
        };
        Ok(NewPath {
            hash,
            narinfo: narinfo.to_stored_text(self.store_dir()),
            nar: (waits, target),
            debug_info: debug_info.unwrap_or_default(),
            replace: replace || replace_nar,
        })
    }

    /// Whether the cache has a path, from any source.
    ///
    /// A path that only a part has counts as well, though another node keeps that part and may collect
    /// it: stock Nix asks the cache for each path of a closure and sends only those that it does not
    /// serve, so what is served has to be enough for what comes after it. What a client of ours asks is
    /// what this node's own bank lacks ([`Self::missing`]), and so a closure that it pushes is whole here.
    ///
    /// The hash alone is not enough: a client would look for the path by its whole name.
    pub(super) fn has(&self, path: &StorePath) -> Result<bool, PushError> {
        let found = self.cache.find(path.hash())?;
        Ok(found.is_some_and(|found| found.narinfo.info.path == *path))
    }

    /// What the bank has of a path.
    pub(super) fn there(&self, hash: StorePathHash) -> Result<There, PushError> {
        match self.source.find(hash) {
            Ok(None) => Ok(There::Nothing),
            Ok(Some(narinfo)) => Ok(There::Whole(Box::new(narinfo))),
            Err(SourceError::Damaged(_)) => Ok(There::Damaged),
            Err(error) => Err(PushError::Unavailable(self.cache.unavailable(error))),
        }
    }

    /// Lets everybody see what was written.
    pub(super) fn published(&self, paths: &[NewPath]) {
        let mut fresh = self.fresh();
        for name in paths.iter().map(|path| path.nar.0) {
            fresh.remove(&name);
        }
        drop(fresh);
        for path in paths {
            self.source.came(path.hash);
            self.cache.came(path.hash);
        }
        self.cache.changed(&self.source);
    }

    /// Notes how long a step took that went well.
    pub(super) fn took(&self, stage: Stage, began: Instant) {
        self.cache.metrics().ingest.took(stage, began);
    }

    /// After a failure: leaves no facts without their NAR.
    pub(super) fn forget_placed(&self, paths: &[NewPath]) {
        for name in paths.iter().map(|path| path.nar.0) {
            let _waiting = self.lock_waiting(name);
            // What is wrong with the disk was told already, and the next start removes what stays.
            let _ = self.bank.forget_placed(name);
        }
    }

    pub(super) fn note_push(&self, info: &PathInfo, pusher: &Pusher) {
        self.pushes.pushed(info.nar_size);
        if let Some(recorder) = &self.recorder {
            recorder.pushed(&self.cache.name, info, pusher);
        }
    }

    pub(super) fn note_refusal(&self, error: &PushError, pusher: &Pusher) {
        if let (Some(recorder), PushError::Conflict { path, ours, theirs }) =
            (&self.recorder, error)
        {
            recorder.conflicted(&self.cache.name, path.hash(), *ours, *theirs, pusher);
        }
    }

    pub(super) fn let_go(&self, name: NarFileName) -> Result<(), PushError> {
        let _waiting = self.lock_waiting(name);
        self.remove_pending(name)
    }

    /// Removes a NAR that waits, whose lock is held.
    pub(super) fn remove_pending(&self, name: NarFileName) -> Result<(), PushError> {
        self.fresh().remove(&name);
        let size = self.bank.open_pending(name).ok().flatten().map_or(0, |(_, size)| size);
        self.bank.remove_pending(name)?;
        self.quota.give_back(size);
        Ok(())
    }

    /// Makes good for what failed before, so that what is found present may be acknowledged.
    pub(super) fn settle(&self) -> Result<(), PushError> {
        if self.bank.settle()? {
            self.cache.changed(&self.source);
        }
        Ok(())
    }

    pub(super) fn fresh(&self) -> MutexGuard<'_, HashMap<NarFileName, Fresh>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_waiting(&self, name: NarFileName) -> MutexGuard<'_, ()> {
        let stripe = usize::from(name.hash.0[0]) % STRIPES;
        self.waiting[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self, hash: StorePathHash) -> MutexGuard<'_, ()> {
        // The lock guards names on disk, which a panic leaves as a crash would.
        self.stripes[stripe(hash)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn stripe(hash: StorePathHash) -> usize {
    usize::from(hash.as_bytes()[0]) % STRIPES
}

fn sorted(paths: &[StorePath]) -> Vec<StorePath> {
    let mut sorted = paths.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// The `debuginfo/` entries of a NAR by its listing, as JSON that Nix writes as well.
fn debug_info(listing: &[u8], nar: NarFileName) -> Vec<(BuildId, String)> {
    let archive = format!("../{}", nar.url());
    let entry = |id: BuildId| {
        let text = serde_json::json!({"archive": archive, "member": id.member()}).to_string();
        (id, text)
    };
    Listing::debug_files_in(listing).into_iter().map(entry).collect()
}
