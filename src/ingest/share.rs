//! Sharing blocks with another cache: the same NAR pushed to a second cache of one pool.
//!
//! It was sent whole and verified as any other, so nobody learns what another cache holds. Only then,
//! where the other cache has a file of the same size under the same NarHash and the pool can clone
//! blocks, ours becomes a copy of that one, which takes no room. The copy is read back and hashed: a
//! file system has been known to give zeros instead (openzfs#15526). What was written for it before is
//! dropped, mostly before it reaches the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use super::nar::VerifiedNar;
use super::publish::Ingest;
use super::refusal::PushError;
use crate::bank::Bank;
use crate::bank::publish::Staged;
use crate::metrics::Metrics;
use crate::nix::hash::Hasher;
use crate::nix::nar_url::NarFileName;

/// What is smaller is not worth a second look: it takes a record of a dataset at the most.
const WORTH_SHARING: u64 = 1 << 20;
/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// Another cache, whose blocks ours may share.
pub struct Twin {
    /// Its bank.
    pub bank: Arc<Bank>,
    /// Whether both lie on a pool that clones blocks, as far as is known now.
    pub shares_blocks: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The other caches; they are known only after all of them were built.
#[derive(Default)]
pub(super) struct Twins(OnceLock<(Vec<Twin>, Arc<Metrics>)>);

impl Ingest {
    /// Says which other caches there are. Only the first call counts.
    pub fn set_twins(&self, twins: Vec<Twin>, metrics: Arc<Metrics>) {
        let _ = self.twins.0.set((twins, metrics));
    }

    /// A copy of what another cache has of this NAR, that takes no room; `None` where there is none.
    pub(super) fn shared(&self, nar: &VerifiedNar) -> Result<Option<Staged>, PushError> {
        let Some((twins, metrics)) = self.twins.0.get() else { return Ok(None) };
        let (name, size) = (NarFileName::zstd(nar.nar_hash), nar.stored.size);
        if size < WORTH_SHARING {
            return Ok(None);
        }
        for twin in twins.iter().filter(|twin| (twin.shares_blocks)()) {
            // What is wrong in another cache is no reason to refuse this push.
            let Ok(Some((file, theirs))) = twin.bank.open_nar(name) else { continue };
            if theirs != size {
                continue;
            }
            let Some(copy) = Staged::copy_of(self.bank.root(), &file, size)? else { continue };
            if is_the_same(copy.file(), nar).unwrap_or(false) {
                metrics.zfs.cloned_bytes.inc_by(size);
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }
}

fn is_the_same(file: &File, nar: &VerifiedNar) -> io::Result<bool> {
    let (mut hasher, mut offset) = (Hasher::default(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            return Ok(hasher.finish() == (nar.stored.hash, nar.stored.size));
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
}
