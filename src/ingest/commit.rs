//! The closures of the native API: which paths are missing, and all of them at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use super::Pusher;
use super::publish::{Checked, Ingest, There, stripe};
use super::refusal::PushError;
use crate::bank::BankError;
use crate::metrics::ingest::Stage;
use crate::native::{CommitRequest, CommitResponse, MAX_COMMIT};
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StorePath, StorePathHash};

impl Ingest {
    /// Makes paths visible, all or none. Blocks.
    ///
    /// Refused with every reason.
    pub fn commit(
        &self,
        request: &CommitRequest,
        pusher: &Pusher,
    ) -> Result<CommitResponse, Vec<PushError>> {
        if request.paths.len() > MAX_COMMIT {
            let count = request.paths.len();
            return Err(vec![PushError::TooMany(format!(
                "{count} paths in one commit; at most {MAX_COMMIT} are taken, references first"
            ))]);
        }
        let store_dir = self.store_dir();
        let proved: HashSet<&StorePath> = request
            .upstream
            .iter()
            .filter(|info| self.policy.is_of_upstream(store_dir, info))
            .map(|info| &info.path)
            .collect();
        let ordered = references_first(&request.paths);
        let named: HashSet<StorePathHash> = ordered.iter().map(|info| info.path.hash()).collect();
        let together: HashSet<&StorePath> = ordered.iter().map(|info| &info.path).collect();
        self.check_there().map_err(|error| vec![error])?;
        let _publishing = self.publishing();
        let _locks = self.lock_all(&named);
        self.settle().map_err(|error| vec![error])?;
        let (mut new, mut present, mut more) = (Vec::new(), Vec::new(), Vec::new());
        let mut useless = Vec::new();
        let mut errors = told_twice(&request.paths);
        for info in ordered {
            let find = || self.pending(NarFileName::bare(info.nar_hash));
            let elsewhere = |path: &StorePath| together.contains(path) || proved.contains(path);
            match self.check(info, &find, &elsewhere) {
                Ok(Checked::New { path, taken_again }) => {
                    useless.extend(taken_again.then_some(path.nar.0));
                    new.push(*path);
                }
                Ok(Checked::Present) => present.push(info.path.hash()),
                Ok(Checked::MoreSignatures(text)) => {
                    present.push(info.path.hash());
                    more.push((info.path.hash(), text));
                }
                Err(error) => {
                    self.note_refusal(&error, pusher);
                    if matches!(error, PushError::Conflict { .. }) {
                        useless.push(NarFileName::bare(info.nar_hash));
                    }
                    errors.push(error);
                }
            }
        }
        if !errors.is_empty() {
            for name in useless {
                self.let_go(name).unwrap_or_else(|error| errors.push(error));
            }
            return Err(errors);
        }
        self.rely_on_all_of(&new);
        let write = || {
            if !new.is_empty() {
                let began = Instant::now();
                self.bank.commit(&new).inspect_err(|_| self.forget_placed(&new))?;
                self.took(Stage::Publish, began);
            }
            more.iter().try_for_each(|(hash, text)| self.bank.replace_narinfo(*hash, text))
        };
        let written = write().map_err(|error: BankError| vec![self.with_numbers(error.into())]);
        self.published(&new);
        written?;
        let published: Vec<_> = new.iter().map(|path| path.hash).collect();
        let is_new: HashSet<_> = published.iter().collect();
        for info in request.paths.iter().filter(|info| is_new.contains(&info.path.hash())) {
            self.note_push(info, pusher);
        }
        Ok(CommitResponse { published, present })
    }

    /// Which of these NARs wait for a commit. Blocks.
    pub fn waiting(&self, nars: &[Sha256]) -> Result<Vec<Sha256>, PushError> {
        let mut waiting = Vec::new();
        for nar in nars {
            if self.pending(NarFileName::bare(*nar))?.is_some() {
                waiting.push(*nar);
            }
        }
        Ok(waiting)
    }

    /// Which of these the bank does not hold whole, in their order. Blocks.
    ///
    /// What only another source has is missing as well: it is not ours to keep.
    ///
    /// With `verify` what it holds is read and hashed, and set aside where it is not what it should
    /// be.
    pub fn missing(
        &self,
        paths: &[StorePathHash],
        verify: bool,
    ) -> Result<Vec<StorePathHash>, PushError> {
        // What was done to the bank by others a moment ago counts as well.
        self.cache.look()?;
        let mut missing = Vec::new();
        for hash in paths {
            let there = match self.there(*hash)? {
                There::Whole(narinfo) => {
                    // Whoever asks goes by the answer.
                    self.cache.asked_for(*hash);
                    !verify || self.verify(&narinfo)?
                }
                There::Nothing | There::Damaged => false,
            };
            if !there {
                missing.push(*hash);
            }
        }
        Ok(missing)
    }

    /// Locks the stripes of many paths, always in the same order.
    fn lock_all(&self, hashes: &HashSet<StorePathHash>) -> Vec<MutexGuard<'_, ()>> {
        let stripes: BTreeSet<usize> = hashes.iter().map(|hash| stripe(*hash)).collect();
        let lock =
            |stripe: usize| self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner);
        stripes.into_iter().map(lock).collect()
    }
}

/// The paths of which a request says two things.
fn told_twice(paths: &[PathInfo]) -> Vec<PushError> {
    let mut seen: BTreeMap<StorePathHash, &PathInfo> = BTreeMap::new();
    let mut errors = Vec::new();
    for info in paths {
        if seen.insert(info.path.hash(), info).is_some_and(|before| before != info) {
            let why = format!("{} is in it twice, with different facts", info.path);
            errors.push(PushError::Object { what: "commit", why });
        }
    }
    errors
}

/// The paths once each, in an order in which each comes after those that it refers to.
fn references_first(paths: &[PathInfo]) -> Vec<&PathInfo> {
    let by_hash: BTreeMap<StorePathHash, &PathInfo> =
        paths.iter().map(|info| (info.path.hash(), info)).collect();
    let mut done = HashSet::new();
    let mut ordered = Vec::with_capacity(by_hash.len());
    for first in by_hash.keys() {
        // Depth first, on a stack of our own: a chain of references may be long.
        let mut stack = vec![(*first, false)];
        while let Some((hash, references_are_done)) = stack.pop() {
            let Some(info) = by_hash.get(&hash) else { continue };
            if references_are_done {
                ordered.push(*info);
            } else if done.insert(hash) {
                stack.push((hash, true));
                stack.extend(info.references.iter().map(|path| (path.hash(), false)));
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_before_what_refers_to_them_and_each_path_once() {
        let path = |number: u8| {
            StorePath::parse(&format!("{}-x", StorePathHash::from_bytes([number; 20]))).unwrap()
        };
        let info = |number: u8, references: &[u8]| PathInfo {
            references: references.iter().map(|number| path(*number)).collect(),
            ..PathInfo::new(path(number), Sha256::of(&[number]), 1)
        };
        let paths = [info(1, &[2, 1, 9]), info(2, &[3]), info(3, &[]), info(2, &[3])];
        let ordered: Vec<_> =
            references_first(&paths).iter().map(|info| info.path.clone()).collect();
        assert_eq!(ordered, [path(3), path(2), path(1)]);
    }
}
