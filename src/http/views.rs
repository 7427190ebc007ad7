//! `@<snapshot>/…`: the views that are open, and the opening of others.
//!
//! A view is opened when somebody asks for it, once, however many ask, and it goes when nobody has asked
//! for a while, or when others are wanted more. It holds nothing open meanwhile: whoever destroys a
//! snapshot or unmounts its dataset does not have to wait for us.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::OriginalUri;
use http::{Request, Uri, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use tokio::sync::{Semaphore, watch};

use super::error::Failure;
use super::state::{State, Work};
use crate::source::cache::Cache;
use crate::source::view::ViewError;
use crate::zfs::SnapshotName;

/// Views that are open at once. Each takes 4 MiB of narinfos and some 200 bytes for each of its paths.
const MAX_OPEN: usize = 8;
/// How long a view stays open that nobody asks for.
const IDLE: Duration = Duration::from_secs(300);
/// Views that are being opened at once, because ZFS starts a process to mount each; more wait.
const OPENING_AT_ONCE: usize = 4;
/// Views that are being opened, or wait for it; more are told to come back.
const MAX_OPENING: usize = 64;

/// A cache's name, and the snapshot.
type Key = (String, SnapshotName);
type Opened = Result<Arc<Cache>, ViewError>;

/// The views of all caches.
pub struct Views {
    open: Mutex<OpenViews<Arc<Cache>>>,
    opening: Mutex<HashMap<Key, watch::Receiver<Option<Opened>>>>,
    turns: Semaphore,
}

/// Those that are open, the one used last at the end; few, so that they are gone through.
struct OpenViews<V>(Vec<OpenView<V>>);

struct OpenView<V> {
    key: Key,
    view: V,
    used: Instant,
}

impl<V: Clone> OpenViews<V> {
    /// The view if it is open, which is used now.
    fn touch(&mut self, key: &Key, now: Instant) -> Option<V> {
        let index = self.0.iter().position(|open| open.key == *key)?;
        self.0[index..].rotate_left(1);
        let last = self.0.last_mut()?;
        last.used = now;
        Some(last.view.clone())
    }

    /// Keeps a view, if there are too many in the place of the one that was used longest ago.
    fn keep(&mut self, key: Key, view: V, now: Instant) {
        self.close(&key);
        if self.0.len() >= MAX_OPEN {
            self.0.remove(0);
        }
        self.0.push(OpenView { key, view, used: now });
    }

    fn close(&mut self, key: &Key) {
        self.0.retain(|open| open.key != *key);
    }

    fn close_idle(&mut self, now: Instant) {
        self.0.retain(|open| now.saturating_duration_since(open.used) <= IDLE);
    }
}

impl Default for Views {
    fn default() -> Self {
        Self {
            open: Mutex::new(OpenViews(Vec::new())),
            opening: Mutex::default(),
            turns: Semaphore::new(OPENING_AT_ONCE),
        }
    }
}

impl Views {
    /// The view of `live` at a snapshot, which was there a moment ago.
    pub async fn get(
        &self,
        state: &Arc<State>,
        live: &Arc<Cache>,
        snapshot: &SnapshotName,
    ) -> Result<Arc<Cache>, Failure> {
        state.metrics.view_requests.inc();
        let key = (live.name.clone(), snapshot.clone());
        let open = lock(&self.open).touch(&key, Instant::now());
        let Some(view) = open else { return Ok(self.open(state, live, key).await??) };
        if !view.is_believed() {
            let (live, looked_at) = (Arc::clone(live), Arc::clone(&view));
            let looked = state.blocking(Work::Small, move || live.look_at_view(&looked_at)).await?;
            if let Err(ViewError::NotThere) = looked {
                self.change(state, |open| open.close(&key));
            }
            looked?;
        }
        State::scan_in_background(&view);
        Ok(view)
    }

    /// Closes what nobody has asked for in a while.
    pub fn close_idle(&self, state: &State) {
        self.change(state, |open| open.close_idle(Instant::now()));
    }

    fn change(&self, state: &State, change: impl FnOnce(&mut OpenViews<Arc<Cache>>)) {
        let mut open = lock(&self.open);
        change(&mut open);
        state.metrics.open_views.set(i64::try_from(open.0.len()).unwrap_or(i64::MAX));
    }

    /// Opens a view, or waits for whoever does.
    async fn open(
        &self,
        state: &Arc<State>,
        live: &Arc<Cache>,
        key: Key,
    ) -> Result<Opened, Failure> {
        let mut opened = match self.join(key.clone())? {
            Joined::Waiting(opened) => opened,
            Joined::First(sender, opened) => {
                // A task of its own: it ends as it would though nobody waits for it any more.
                tokio::spawn(open_one(Arc::clone(state), Arc::clone(live), key, sender));
                opened
            }
        };
        let opened = tokio::time::timeout(state.patience, opened.wait_for(Option::is_some)).await;
        match opened.map(|waited| waited.map(|opened| opened.clone())) {
            Ok(Ok(Some(opened))) => Ok(opened),
            Ok(_) => Err(Failure::Internal("the opening of a view failed".into())),
            Err(_) => Err(Failure::Busy("the snapshot is still being opened; ask again")),
        }
    }

    fn join(&self, key: Key) -> Result<Joined, Failure> {
        let mut opening = lock(&self.opening);
        let busy = opening.len() >= MAX_OPENING;
        match opening.entry(key) {
            Entry::Occupied(entry) => Ok(Joined::Waiting(entry.get().clone())),
            Entry::Vacant(_) if busy => {
                Err(Failure::Busy("too many snapshots are being opened; ask again"))
            }
            Entry::Vacant(entry) => {
                let (sender, receiver) = watch::channel(None);
                entry.insert(receiver.clone());
                Ok(Joined::First(sender, receiver))
            }
        }
    }
}

enum Joined {
    /// Somebody opens it already.
    Waiting(watch::Receiver<Option<Opened>>),
    /// It is for the caller to open.
    First(watch::Sender<Option<Opened>>, watch::Receiver<Option<Opened>>),
}

async fn open_one(
    state: Arc<State>,
    live: Arc<Cache>,
    key: Key,
    sender: watch::Sender<Option<Opened>>,
) {
    let views = &state.views;
    // It is never closed; an error could only mean that the process ends.
    let _turn = views.turns.acquire().await;
    let snapshot = key.1.clone();
    let work = tokio::task::spawn_blocking(move || live.open_view(&snapshot).map(Arc::new));
    let opened = work.await.ok();
    if let Some(Ok(view)) = &opened {
        State::scan_in_background(view);
        let view = Arc::clone(view);
        views.change(&state, |open| open.keep(key.clone(), view, Instant::now()));
    }
    // Whoever comes between these finds it open, and whoever came before is told.
    lock(&views.opening).remove(&key);
    sender.send_replace(opened);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a request's path that names a snapshot.
pub(super) struct Asked {
    /// Which.
    pub(super) snapshot: SnapshotName,
    /// Where in the path the part begins and ends: `/@<name>`.
    pub(super) part: std::ops::Range<usize>,
}

impl Asked {
    /// Reads the part that begins at `start` of a path, behind that of the cache; `Ok(None)` where it names
    /// no snapshot, and an error where it names one that cannot be.
    pub(super) fn of(path: &str, start: usize) -> Result<Option<Self>, NoName> {
        let Some(below) = path[start..].strip_prefix('/') else { return Ok(None) };
        // What begins otherwise is nearly every request, and is not looked at any further.
        if !below.starts_with(['@', '%']) {
            return Ok(None);
        }
        let written = below.split('/').next().unwrap_or(below);
        let Ok(part) = percent_decode_str(written).decode_utf8() else { return Ok(None) };
        let Some(name) = part.strip_prefix('@') else { return Ok(None) };
        let snapshot = SnapshotName::parse(name).map_err(|_| NoName)?;
        Ok(Some(Self { snapshot, part: start..start + 1 + written.len() }))
    }

    /// The request as the live cache would be asked; the router sees nothing of the view. What it was is
    /// kept for those who need the whole path.
    pub(super) fn take_out_of<B>(&self, request: &mut Request<B>) -> Result<(), Failure> {
        let original = request.uri().clone();
        let path = original.path();
        let (before, after) = (&path[..self.part.start], &path[self.part.end..]);
        let after = if after.is_empty() { "/" } else { after };
        let plain = match original.query() {
            Some(query) => format!("{before}{after}?{query}"),
            None => format!("{before}{after}"),
        };
        let plain: PathAndQuery =
            plain.parse().map_err(|_| Failure::BadRequest("the path cannot be read"))?;
        let mut parts = original.clone().into_parts();
        parts.path_and_query = Some(plain);
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|_| Failure::BadRequest("the path cannot be read"))?;
        request.extensions_mut().insert(OriginalUri(original));
        Ok(())
    }
}

/// No snapshot can have such a name.
#[derive(Debug)]
pub(super) struct NoName;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        (String::from("default"), SnapshotName::parse(&number.to_string()).unwrap())
    }

    #[test]
    fn of_too_many_views_the_one_used_longest_ago_goes() {
        let mut open = OpenViews(Vec::new());
        let start = Instant::now();
        for number in 0..MAX_OPEN {
            open.keep(key(number), number, start);
        }
        assert_eq!(open.touch(&key(0), start), Some(0));
        open.keep(key(MAX_OPEN), MAX_OPEN, start);
        assert_eq!(open.0.len(), MAX_OPEN);
        assert_eq!((open.touch(&key(0), start), open.touch(&key(1), start)), (Some(0), None));
        open.keep(key(0), 100, start);
        assert_eq!((open.touch(&key(0), start), open.0.len()), (Some(100), MAX_OPEN));
    }

    #[test]
    fn a_view_that_nobody_asks_for_is_closed_after_a_while_and_no_other() {
        let mut open = OpenViews(Vec::new());
        let start = Instant::now();
        open.keep(key(1), 1, start);
        open.keep(key(2), 2, start);
        assert!(open.touch(&key(1), start + IDLE).is_some());
        open.close_idle(start + IDLE);
        assert_eq!(open.0.len(), 2);
        open.close_idle(start + IDLE + Duration::from_secs(1));
        assert_eq!(open.0.iter().map(|open| open.view).collect::<Vec<_>>(), [1]);
    }

    /// What the router is asked, and for which snapshot.
    fn taken(uri: &str, start: usize) -> Option<(String, String)> {
        let mut request = Request::get(uri).body(()).unwrap();
        let asked = Asked::of(request.uri().path(), start).unwrap()?;
        asked.take_out_of(&mut request).unwrap();
        assert_eq!(request.extensions().get::<OriginalUri>().unwrap().0, uri);
        Some((request.uri().to_string(), asked.snapshot.to_string()))
    }

    #[test]
    fn the_part_of_the_snapshot_is_taken_out_of_the_path_and_nothing_else() {
        let some = |plain: &str, name: &str| Some((plain.to_owned(), name.to_owned()));
        assert_eq!(taken("/@a/nix-cache-info", 0), some("/nix-cache-info", "a"));
        assert_eq!(taken("/@a", 0), some("/", "a"));
        assert_eq!(taken("/@a/", 0), some("/", "a"));
        assert_eq!(taken("/c/x/@a%3Ab/nar/1.nar?hash=2", 4), some("/c/x/nar/1.nar?hash=2", "a:b"));
        assert_eq!(taken("/c/x/%40a:b/", 4), some("/c/x/", "a:b"));
        assert_eq!(taken("/@a/serve/x/%ff/%2e", 0), some("/serve/x/%ff/%2e", "a"));
        for other in ["/", "/nix-cache-info", "/nar/@a", "/%ff/x", "/%61/x"] {
            assert_eq!(taken(other, 0), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for path in ["/@../x", "/@%2e%2e/x", "/@./x", "/@a%2fb/x", "/@/x", "/@-a/x", "/@a%00/x"] {
            assert!(Asked::of(path, 0).is_err(), "{path}");
        }
    }
}
