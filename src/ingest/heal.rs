//! Putting a path back that the disk has lost.

use std::io::Read;
use std::sync::Arc;

use super::Outcome;
use super::check::check_facts;
use super::publish::{Ingest, There};
use super::refusal::PushError;
use super::upload::Added;
use crate::bank::publish::commit::NewPath;
use crate::codec::Compression;
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;
use crate::sign::PublicKey;
use crate::source::Source;
use crate::source::cache::Cache;

impl Ingest {
    /// Takes the NAR of a path that is here and damaged, and puts it in the place of what is damaged, with
    /// a narinfo of it. Blocks.
    ///
    /// `info` is of the path's own narinfo, or, where that is what was lost, of one that
    /// [`vouches`](Self::vouches) for the path. Nothing changes unless the bytes that come are those of its
    /// NarHash, or where the path is whole again by now.
    pub fn heal(
        &self,
        info: &PathInfo,
        compression: Compression,
        body: impl Read,
    ) -> Result<Outcome, PushError> {
        self.admitted(|| {
            let promised = (info.nar_hash, info.nar_size);
            let added = self.take_promised(promised, compression, body)?;
            let outcome = self.put_back(info);
            if added == Added::Kept && !matches!(outcome, Ok(Outcome::Published)) {
                self.let_go(NarFileName::bare(info.nar_hash))?;
            }
            outcome
        })
    }

    /// Does something while nobody publishes, heals or collects this path.
    pub fn alone_with<T>(&self, hash: StorePathHash, work: impl FnOnce() -> T) -> T {
        let _publishing = self.publishing();
        let _lock = self.lock(hash);
        work()
    }

    /// Whether a key that this cache knows, or one of `more`, signed what is said of a path.
    pub fn vouches(&self, info: &PathInfo, more: &[PublicKey]) -> bool {
        let keys = [&self.cache.keys().public(), more].concat();
        self.policy.vouches(self.store_dir(), info, &keys)
    }

    /// The cache that paths are pushed to, and the one of its sources that is its own bank.
    pub fn place(&self) -> (&Arc<Cache>, &Arc<Source>) {
        (&self.cache, &self.source)
    }

    /// Sets a NAR aside that was damaged, and that no narinfo names any more. Blocks.
    pub fn set_aside(&self, name: NarFileName) -> Result<(), PushError> {
        Ok(self.bank.set_aside(name)?)
    }

    fn put_back(&self, info: &PathInfo) -> Result<Outcome, PushError> {
        let hash = info.path.hash();
        let _publishing = self.publishing();
        let _lock = self.lock(hash);
        self.settle()?;
        if !matches!(self.there(hash)?, There::Damaged) {
            return Ok(Outcome::Present);
        }
        let Some((waits, facts)) = self.pending(NarFileName::bare(info.nar_hash))? else {
            return Err(PushError::NoNar { path: info.path.clone() });
        };
        check_facts(info, &facts)?;
        self.commit_one(self.new_path(info.clone(), waits, &facts, true)?)?;
        Ok(Outcome::Published)
    }

    /// Makes a path visible that nobody has pushed, whose lock is held.
    pub(super) fn commit_one(&self, path: NewPath) -> Result<(), PushError> {
        let path = [path];
        self.rely_on_all_of(&path);
        self.bank.commit(&path).inspect_err(|_| self.forget_placed(&path))?;
        self.published(&path);
        Ok(())
    }
}
