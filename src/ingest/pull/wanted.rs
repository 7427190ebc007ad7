//! What is fetched though no client waits for it: what pushed paths refer to, and is not here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Fetched, Puller, Remembered};
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::source::growing::Progress;

/// The most paths that wait; what is beyond is fetched when a client asks for it.
const MAX_WANTED: usize = 1 << 16;

/// The paths that wait to be fetched.
#[derive(Default)]
pub(super) struct Wanted {
    queue: Mutex<VecDeque<StorePathHash>>,
    more: Notify,
}

impl Wanted {
    fn add(&self, hash: StorePathHash) {
        let mut queue = self.queue();
        if queue.len() < MAX_WANTED {
            queue.push_back(hash);
            self.more.notify_one();
        }
    }

    async fn next(&self) -> StorePathHash {
        loop {
            if let Some(hash) = self.queue().pop_front() {
                return hash;
            }
            self.more.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<StorePathHash>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Puller {
    /// Whether a path that is not here is offered from elsewhere; then it is fetched. Blocks, no longer than the
    /// deadline.
    pub(super) fn wants(&self, path: &StorePath) -> bool {
        let hash = path.hash();
        let offer = self.remembered(hash).unwrap_or_else(|| {
            let found = self.ask(hash, 0);
            let Remembered { offer, .. } = found.clone();
            self.memory.insert(hash, found);
            offer
        });
        let is_offered = offer.is_some_and(|offer| offer.theirs.info.path == *path);
        if is_offered {
            self.wanted.add(hash);
        }
        is_offered
    }

    /// Fetches what is wanted, with all that it refers to, one path at a time, for ever.
    pub async fn fetch_what_is_wanted(self: Arc<Self>) {
        loop {
            let hash = self.wanted.next().await;
            if let Err(why) = self.fetch_wanted(hash).await {
                tracing::warn!(%hash, "a pushed path refers to it, and it is not here: {why}");
            }
        }
    }

    async fn fetch_wanted(self: &Arc<Self>, hash: StorePathHash) -> Result<(), String> {
        let shared = Arc::clone(self);
        let there = tokio::task::spawn_blocking(move || shared.ingest.place().0.find(hash));
        let there = there.await.map_err(|error| error.to_string())?;
        if there.map_err(|error| error.to_string())?.is_some() {
            return Ok(());
        }
        let offer = self.find(hash).await.ok_or("nobody offers it any more")?;
        let info = &offer.theirs.info;
        let file = match self.nar(hash, info.nar_hash).await.map_err(|error| error.to_string())? {
            Fetched::Coming(file) => file,
            Fetched::Here => return Ok(()),
            Fetched::Nowhere => return Err("it is offered no more".into()),
        };
        let mut progress = file.watch();
        let ended = progress.wait_for(|progress| !matches!(progress, Progress::Growing(_))).await;
        match ended.map(|end| end.clone()) {
            Ok(Progress::Done(_)) => {
                let others = info.references.iter().filter(|reference| **reference != info.path);
                others.for_each(|reference| self.wanted.add(reference.hash()));
                Ok(())
            }
            Ok(Progress::Failed(why)) => Err(why.to_string()),
            Ok(Progress::Growing(_)) | Err(_) => Err("it was broken off".into()),
        }
    }
}
