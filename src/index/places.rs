//! Which directories were seen to hold a bank.
//!
//! A directory in which nothing is found may be the place of a dataset that has not come yet, or of one that
//! is not mounted now. The first has no paths, for certain; of the second nothing is known. What tells them
//! apart is whether a bank was ever seen there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The directories that were seen to hold a bank. Known for as long as the process lives.
#[derive(Debug, Default)]
pub struct KnownPlaces(Mutex<BTreeSet<PathBuf>>);

impl KnownPlaces {
    /// Whether a bank was seen there once.
    pub fn was_there(&self, directory: &Path) -> bool {
        self.lock().contains(directory)
    }

    /// Notes that a bank is there.
    pub fn saw(&self, directory: &Path) {
        let mut known = self.lock();
        if !known.contains(directory) {
            known.insert(directory.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}
