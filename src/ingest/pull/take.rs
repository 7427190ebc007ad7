//! Keeping what is fetched from elsewhere, while clients read it.

use std::io::Read;

use crate::bank::publish::Staged;
use crate::codec::Compression;
use crate::ingest::nar::{Keep, Output, Taken, take};
use crate::ingest::publish::There;
use crate::ingest::upload::Added;
use crate::ingest::{Ingest, Outcome, PushError, Pusher};
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;
use crate::source::growing::{GrowingFile, Progress};

impl Ingest {
    /// A file in the bank for a NAR that is to come, and a handle of it for those who read it meanwhile.
    pub(super) fn room_for_a_nar(&self) -> Result<(Staged, GrowingFile), PushError> {
        self.check_there()?;
        let staged = Staged::create(self.bank.root())?;
        let file = staged.file().try_clone().map_err(|source| crate::bank::BankError::Io {
            path: self.bank.root().into(),
            source,
        })?;
        Ok((staged, GrowingFile::new(file)))
    }

    /// Takes a NAR into `staged`, tells those who read `file` how far it is, and makes its path visible. Blocks.
    ///
    /// `info` is of a narinfo that a key vouches for which this cache goes by. Readers are told of a whole NAR once
    /// its bytes are those of the NarHash, and of anything else that it failed; what becomes of the path is for
    /// those who come later.
    pub(super) fn pull(
        &self,
        info: &PathInfo,
        (compression, body): (Compression, impl Read),
        (staged, file): (&Staged, &GrowingFile),
        from: &Pusher,
    ) -> Result<Outcome, PushError> {
        self.admitted(|| {
            let room = self.quota.reserve();
            let limits = self.promised(info.nar_size);
            let output = Output::within(staged.file(), &room).read_along(file);
            let taken = take(body, compression, &limits, Keep::Encoded, &self.pool, output)?;
            let Taken::Stored(nar) = taken else {
                unreachable!("what is encoded here has our form")
            };
            let promised = (info.nar_hash, info.nar_size);
            Self::check_promised(promised, &nar)?;
            file.end(Progress::Done(nar.stored.size));
            let added = self.add_promised(promised, &nar, staged)?;
            if added == Added::Kept {
                room.keep();
            }
            let published = self.publish_pulled(info, from);
            if added == Added::Kept && !matches!(published, Ok(Outcome::Published)) {
                self.let_go(NarFileName::bare(info.nar_hash))?;
            }
            published
        })
    }

    fn publish_pulled(&self, info: &PathInfo, from: &Pusher) -> Result<Outcome, PushError> {
        let hash = info.path.hash();
        let _publishing = self.publishing();
        let _lock = self.lock(hash);
        self.settle()?;
        let replace = match self.there(hash)? {
            There::Whole(_) => return Ok(Outcome::Present),
            There::Damaged => true,
            There::Nothing => false,
        };
        let Some((waits, facts)) = self.pending(NarFileName::bare(info.nar_hash))? else {
            return Err(PushError::NoNar { path: info.path.clone() });
        };
        let own = self.cache.keys().public();
        let signatures = self.policy.believable(self.store_dir(), info, &own);
        let info = PathInfo { signatures, ..info.clone() };
        // Its references may be here or not: they come when they are asked for, as it did.
        let checked = self.check_info(&info, waits, &facts, true)?;
        self.commit_one(self.new_path(checked, waits, &facts, replace)?)?;
        self.note_push(&info, from);
        Ok(Outcome::Published)
    }
}
