//! Pull-through: what a cache does not have is fetched from peers and upstreams, when a client asks for it.
//!
//! ```text
//! GET <hash>.narinfo   not here → memory, else each place in its order, within a deadline → its narinfo, with the
//!                      URL that the NAR will have here; nothing is fetched yet
//! GET nar/….nar.zst    not here → the NAR is fetched once, however many ask: decoded, hashed, compressed into the
//!                      bank, and sent to all of them while it comes; then the path is published
//! ```
//!
//! A narinfo is believed if a key signed it that the cache goes by, or one of the place's own. Clients that ask what
//! they need to push (HEAD) and peers (`Cache-Control: only-if-cached`) are told what is here, and start nothing.
//!
//! A miss never waits for a cache that is down: there is one deadline for all places together, a place that did not
//! answer is not asked until it was seen to answer again ([`circuit`](crate::source::upstream::circuit)), and what
//! nobody has is remembered for a while. Peers tell what they hold ([`holdings`](crate::index::holdings)), so that
//! most misses ask nobody.
//!
//! References of a path that was fetched come as it came, when they are asked for. But where a path is pushed that
//! refers to what is only offered from elsewhere, that is fetched as well, with all that it refers to: a closure that
//! was pushed is whole here, soon, whatever becomes of the upstream.

mod place;
mod take;
mod wanted;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache as Memory;
use tokio::sync::Semaphore;

pub use place::Place;
use wanted::Wanted;

use super::{Ingest, PushError, Pusher};
use crate::bank::publish::Staged;
use crate::metrics::SourceLabel;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::source::cache::Answer;
use crate::source::growing::{GrowingFile, Progress};
use crate::source::upstream::UpstreamError;

/// Paths of which it is remembered whether anybody has them.
const REMEMBERED: usize = 1 << 16;
/// How long it is remembered that somebody has a path.
const OFFERS_KEPT: Duration = Duration::from_secs(600);
/// How long it is remembered that it could not be found out.
const DOUBT_KEPT: Duration = Duration::from_secs(1);
/// Paths that are asked for elsewhere at once; each takes a thread.
pub const ASKED_AT_ONCE: usize = 32;
/// NARs that are fetched at once; each takes a thread.
const PULLED_AT_ONCE: usize = 32;
/// What a NAR may take to come, besides what its size takes.
const PULL_TIME: Duration = Duration::from_secs(120);
/// The slowest that a NAR may come, in bytes a second of the uncompressed NAR.
const SLOWEST: u64 = 64 << 10;
/// How long a client waits for the first byte of a NAR before it is told to ask again.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// How a cache asks others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullSettings {
    /// How long a miss may wait for all of them together.
    pub deadline: Duration,
    /// How long it is remembered that none of them has a path.
    pub misses_kept: Duration,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1), misses_kept: Duration::from_secs(60) }
    }
}

/// Fetches what one cache does not have.
pub struct Puller {
    ingest: Arc<Ingest>,
    places: Vec<Place>,
    settings: PullSettings,
    memory: Memory<StorePathHash, Remembered>,
    pulls: Mutex<HashMap<StorePathHash, Pull>>,
    asking: Arc<Semaphore>,
    pulling: Arc<Semaphore>,
    wanted: Wanted,
}

/// A path that a place has.
pub struct Offer {
    /// What is answered.
    pub answer: Arc<Answer>,
    /// Whether a peer or an upstream has it.
    pub kind: SourceLabel,
    theirs: NarInfo,
    /// Which of the places.
    index: usize,
}

#[derive(Clone)]
struct Remembered {
    offer: Option<Arc<Offer>>,
    until: Instant,
}

/// A NAR that is being fetched.
struct Pull {
    nar_hash: Sha256,
    file: Arc<GrowingFile>,
}

/// A NAR that is not here, as far as it was looked.
pub enum Fetched {
    /// Nobody has it.
    Nowhere,
    /// It has just come: it is asked for where everything is that is here.
    Here,
    /// It comes.
    Coming(Arc<GrowingFile>),
}

/// A NAR could not be had now, and may be later.
#[derive(Debug, thiserror::Error)]
pub enum Unfetched {
    /// As many as may be fetched at once.
    #[error("{PULLED_AT_ONCE} NARs are being fetched; ask again")]
    Busy,
    /// There was none.
    #[error("{0}")]
    Failed(String),
}

/// Why a NAR was not fetched from one place.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Push(#[from] PushError),
    #[error("the NAR is not there, though its narinfo is")]
    NoNar,
}

impl Puller {
    /// Asks `places` in their order, and keeps what is fetched in the bank of `ingest`.
    pub fn new(ingest: Arc<Ingest>, places: Vec<Place>, settings: PullSettings) -> Arc<Self> {
        let puller = Arc::new(Self {
            ingest,
            places,
            settings,
            memory: Memory::new(REMEMBERED),
            pulls: Mutex::default(),
            asking: Arc::new(Semaphore::new(ASKED_AT_ONCE)),
            pulling: Arc::new(Semaphore::new(PULLED_AT_ONCE)),
            wanted: Wanted::default(),
        });
        // Weakly: what takes pushes is a part of it.
        let weak = Arc::downgrade(&puller);
        let offers =
            move |path: &StorePath| weak.upgrade().is_some_and(|puller| puller.wants(path));
        if puller.ingest.offers.set(Box::new(offers)).is_err() {
            tracing::error!("two ask for what one cache does not have");
        }
        puller
    }

    /// The caches that are asked.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What fetched paths are kept by.
    pub const fn ingest(&self) -> &Arc<Ingest> {
        &self.ingest
    }

    /// What memory says of a path that is not here: an offer, or that nobody has it; nothing where it must be asked.
    pub fn remembered(&self, hash: StorePathHash) -> Option<Option<Arc<Offer>>> {
        if let Some(known) = self.memory.get(&hash)
            && known.until > Instant::now()
        {
            return Some(known.offer);
        }
        self.nobody_can_have(hash).then_some(None)
    }

    /// Finds out who has a path, once however many ask. It takes no longer than the deadline, and a little more for
    /// those who come when many ask.
    pub async fn find(self: &Arc<Self>, hash: StorePathHash) -> Option<Arc<Offer>> {
        if let Some(known) = self.remembered(hash) {
            return known;
        }
        self.memory.remove_if(&hash, |known| known.until <= Instant::now());
        let ask = async {
            let leave = Arc::clone(&self.asking).acquire_owned();
            let Ok(Ok(leave)) = tokio::time::timeout(self.settings.deadline, leave).await else {
                return Err(());
            };
            let shared = Arc::clone(self);
            let asked = tokio::task::spawn_blocking(move || {
                let _leave = leave;
                shared.ask(hash, 0)
            });
            asked.await.map_err(|_| ())
        };
        self.memory.get_or_insert_async(&hash, ask).await.ok()?.offer
    }

    /// The NAR of a path that is not here, as it comes.
    pub async fn nar(
        self: &Arc<Self>,
        hash: StorePathHash,
        nar_hash: Sha256,
    ) -> Result<Fetched, Unfetched> {
        let file = match self.begin(hash, nar_hash).await? {
            Fetched::Coming(file) => file,
            other => return Ok(other),
        };
        let mut progress = file.watch();
        let begun = progress.wait_for(|progress| *progress != Progress::Growing(0));
        let first = match tokio::time::timeout(FIRST_BYTE, begun).await {
            Ok(Ok(first)) => first.clone(),
            Ok(Err(_)) => return Ok(Fetched::Nowhere),
            Err(_) => return Err(Unfetched::Failed("no byte of it came yet; ask again".into())),
        };
        match first {
            Progress::Failed(why) => Err(Unfetched::Failed(why.to_string())),
            Progress::Growing(_) | Progress::Done(_) => Ok(Fetched::Coming(file)),
        }
    }

    /// The file of a pull that is under way, or of one that begins now.
    async fn begin(
        self: &Arc<Self>,
        hash: StorePathHash,
        nar_hash: Sha256,
    ) -> Result<Fetched, Unfetched> {
        if let Some(pull) = self.pulls().get(&hash) {
            return Ok(pull.of(nar_hash));
        }
        let offer = self.find(hash).await;
        let Some(offer) = offer.filter(|offer| offer.theirs.info.nar_hash == nar_hash) else {
            return Ok(Fetched::Nowhere);
        };
        let shared = Arc::clone(self);
        let begun = tokio::task::spawn_blocking(move || shared.begin_pull(hash, &offer)).await;
        begun.map_err(|error| Unfetched::Failed(error.to_string()))?
    }

    fn begin_pull(
        self: &Arc<Self>,
        hash: StorePathHash,
        offer: &Arc<Offer>,
    ) -> Result<Fetched, Unfetched> {
        let nar_hash = offer.theirs.info.nar_hash;
        let leave = Arc::clone(&self.pulling).try_acquire_owned().map_err(|_| Unfetched::Busy)?;
        let failed = |error: &dyn std::fmt::Display| Unfetched::Failed(error.to_string());
        let (staged, file) = self.ingest.room_for_a_nar().map_err(|error| failed(&error))?;
        if let Some(pull) = self.pulls().get(&hash) {
            return Ok(pull.of(nar_hash));
        }
        // A pull is in the list until its path is published: one that ended a moment ago is seen here.
        if let Ok(Some(_)) = self.ingest.place().1.find(hash) {
            return Ok(Fetched::Here);
        }
        let file = Arc::new(file);
        let pull = Pull { nar_hash, file: Arc::clone(&file) };
        let (shared, offer) = (Arc::clone(self), Arc::clone(offer));
        let theirs = Arc::clone(&file);
        let run = move || {
            let _leave = leave;
            // Whatever becomes of it, those who wait are told, and the next may try.
            let _over = Over { puller: &shared, hash, file: &theirs };
            shared.pull(&offer, &staged, &theirs);
        };
        let mut pulls = self.pulls();
        if let Some(pull) = pulls.get(&hash) {
            return Ok(pull.of(nar_hash));
        }
        std::thread::Builder::new()
            .name("pull".into())
            .spawn(run)
            .map_err(|error| failed(&error))?;
        pulls.insert(hash, pull);
        Ok(Fetched::Coming(file))
    }

    /// Fetches a NAR from the place that offers it, else from those after it. Blocks, until the path is published.
    fn pull(&self, offer: &Arc<Offer>, staged: &Staged, file: &GrowingFile) {
        let (info, mut offer) = (&offer.theirs.info, Arc::clone(offer));
        let hash = info.path.hash();
        loop {
            let place = &self.places[offer.index];
            let cache = &self.ingest.place().0.name;
            let began = Instant::now();
            let error = match self.pull_from(place, &offer.theirs, staged, file) {
                Ok(_) => {
                    place.metrics.nar_duration.observe(began.elapsed().as_secs_f64());
                    tracing::info!(cache, path = %info.path, from = place.url(), "fetched");
                    place.metrics.pulled.inc();
                    place.metrics.bytes.inc_by(info.nar_size);
                    // The offer stays remembered: who looked before it was here need not ask the place again.
                    return;
                }
                Err(error) => error,
            };
            place.metrics.not_pulled.inc();
            tracing::warn!(cache, path = %info.path, from = place.url(), "not fetched: {}", whole(&error));
            let next = self.ask(hash, offer.index + 1);
            // What was sent to readers already is not taken back.
            let is_clean = *file.watch().borrow() == Progress::Growing(0);
            let same = |next: &Arc<Offer>| next.theirs.info.nar_hash == info.nar_hash;
            match next.offer.clone().filter(|next| is_clean && same(next)) {
                Some(other) => offer = other,
                None => {
                    // Whoever asks next is sent elsewhere at once, if there is somebody.
                    let until = Instant::now() + self.settings.misses_kept;
                    self.memory.insert(hash, Remembered { until, ..next });
                    file.end(Progress::Failed(error.to_string().into()));
                    return;
                }
            }
        }
    }

    fn pull_from(
        &self,
        place: &Place,
        theirs: &NarInfo,
        staged: &Staged,
        file: &GrowingFile,
    ) -> Result<super::Outcome, Failure> {
        let within = PULL_TIME + Duration::from_secs(theirs.info.nar_size / SLOWEST);
        let nar = place.client().nar_within(theirs, Some(within));
        let nar = nar.inspect_err(|error| place.failed(error))?;
        let body = nar.ok_or(Failure::NoNar)?;
        let from = Pusher::upstream(place.url());
        Ok(self.ingest.pull(&theirs.info, body, (staged, file), &from)?)
    }

    /// Asks each place in turn, from the one of this number on. Blocks, no longer than the deadline.
    fn ask(&self, hash: StorePathHash, from: usize) -> Remembered {
        let (began, mut is_certain) = (Instant::now(), true);
        let may_have = |(_, place): &(usize, &Place)| place.may_have(hash);
        let all: Vec<_> = self.places.iter().enumerate().skip(from).filter(may_have).collect();
        let asked: Vec<_> = all.iter().filter(|(_, place)| place.answers()).collect();
        is_certain &= asked.len() == all.len();
        let mut left = u32::try_from(asked.len()).unwrap_or(u32::MAX);
        for (index, place) in asked {
            let rest = self.settings.deadline.saturating_sub(began.elapsed());
            let within = rest / left;
            left -= 1;
            match place.narinfo(hash, self.ingest.store_dir(), within) {
                Ok(Some(theirs)) if self.ingest.vouches(&theirs.info, &place.keys) => {
                    let offer = Arc::new(self.offer(theirs, *index));
                    return Remembered { offer: Some(offer), until: Instant::now() + OFFERS_KEPT };
                }
                Ok(Some(_)) => {
                    place.metrics.untrusted.inc();
                    tracing::debug!(%hash, from = place.url(), "no known key signed it");
                }
                Ok(None) => {}
                Err(error) => {
                    is_certain = false;
                    tracing::debug!(%hash, "not found out: {error}");
                }
            }
        }
        let kept = if is_certain { self.settings.misses_kept } else { DOUBT_KEPT };
        Remembered { offer: None, until: Instant::now() + kept }
    }

    fn offer(&self, theirs: NarInfo, index: usize) -> Offer {
        let (cache, source) = self.ingest.place();
        let hash = theirs.info.path.hash();
        let narinfo = NarInfo {
            info: theirs.info.clone(),
            // With the path, so that the NAR is found also by a process that never saw the narinfo.
            url: format!("{}?hash={hash}", NarFileName::zstd(theirs.info.nar_hash).url()),
            compression: "zstd".into(),
            file_hash: None,
            file_size: None,
        };
        let answer = Arc::new(cache.answer_with(narinfo, source));
        Offer { answer, kind: self.places[index].kind(), theirs, index }
    }

    /// Whether nobody needs to be asked, or nothing could be kept.
    fn nobody_can_have(&self, hash: StorePathHash) -> bool {
        let may_have = |place: &Place| place.answers() && place.may_have(hash);
        !self.places.iter().any(may_have) || self.ingest.no_room.was_just_now()
    }

    fn pulls(&self) -> MutexGuard<'_, HashMap<StorePathHash, Pull>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with what is behind it, for the log.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

impl Pull {
    fn of(&self, nar_hash: Sha256) -> Fetched {
        if self.nar_hash == nar_hash {
            Fetched::Coming(Arc::clone(&self.file))
        } else {
            Fetched::Nowhere
        }
    }
}

/// The end of a pull, however it comes.
struct Over<'a> {
    puller: &'a Puller,
    hash: StorePathHash,
    file: &'a GrowingFile,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.file.end(Progress::Failed("it was broken off".into()));
        self.puller.pulls().remove(&self.hash);
    }
}
