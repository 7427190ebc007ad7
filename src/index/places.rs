//! Which directories were seen to hold a bank.
//!
//! A directory in which nothing is found may be the place of a dataset that has not come yet, or of one that
//! is not mounted now. The first has no paths, for certain; of the second nothing is known. What tells them
//! apart is whether a bank was ever seen there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::state::StateDb;
use crate::bank::is_mount_point;

/// The directories that were seen to hold a bank: by this process, and, where there is a state
/// database, by those before it.
#[derive(Default)]
pub struct KnownPlaces {
    seen: Mutex<BTreeSet<PathBuf>>,
    state: Option<Arc<StateDb>>,
}

impl KnownPlaces {
    /// Remembers in this database, where there is one.
    pub fn new(state: Option<Arc<StateDb>>) -> Self {
        Self { state, ..Self::default() }
    }

    /// Whether a bank was seen there once.
    pub fn was_there(&self, directory: &Path) -> bool {
        let before = |state: &Arc<StateDb>| match state.place(directory) {
            Ok(place) => place.is_some(),
            Err(error) => {
                tracing::warn!("whether a bank was at {}: {error}", directory.display());
                false
            }
        };
        self.lock().contains(directory) || self.state.as_ref().is_some_and(before)
    }

    /// Notes that a bank is there.
    pub fn saw(&self, directory: &Path) {
        if !self.lock().insert(directory.to_owned()) {
            return;
        }
        let Some(state) = &self.state else { return };
        let mounted = is_mount_point(directory).unwrap_or(false);
        if let Err(error) = state.note_place(directory, mounted, Timestamp::now().as_second()) {
            tracing::warn!("that a bank is at {} is not remembered: {error}", directory.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_known_from_when_it_was_seen() {
        let places = KnownPlaces::default();
        assert!(!places.was_there(Path::new("/tank/a")));
        places.saw(Path::new("/tank/a"));
        assert!(places.was_there(Path::new("/tank/a")) && !places.was_there(Path::new("/tank/b")));
    }

    #[test]
    fn a_place_is_known_to_later_processes_by_the_state_database() {
        let data = tempfile::tempdir().unwrap();
        let open = || KnownPlaces::new(Some(Arc::new(StateDb::open(data.path()).unwrap())));
        open().saw(data.path());
        assert!(open().was_there(data.path()) && !open().was_there(Path::new("/tank/b")));
    }
}
