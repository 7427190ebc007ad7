//! What a pusher says of a path, held against what was computed of its NAR.

use super::facts::Facts;
use super::refusal::PushError;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::{Signature, fingerprint};
use crate::nix::store_path::{StoreDir, StorePath};
use crate::sign::{PublicKey, is_forged};

use super::Accept;

/// The keys that a cache knows, and what it takes.
pub struct Policy {
    /// Which paths are taken.
    pub accept: Accept,
    /// A path signed by one of these is taken whoever pushes it.
    pub trusted_keys: Vec<PublicKey>,
    /// A path signed by one of these need not be pushed.
    pub upstream_keys: Vec<PublicKey>,
}

/// Holds NarHash, NarSize and references against the NAR.
///
/// Each declared reference must occur in the NAR. The reverse is not asked for: a NAR may well hold
/// the hash of a path that it does not refer to (`unsafeDiscardReferences`,
/// `unsafeDiscardStringContext`), since Nix looks only for the inputs of the build. Of its own path
/// Nix always looks, and so do we.
pub(super) fn check_facts(info: &PathInfo, facts: &Facts) -> Result<(), PushError> {
    let path = &info.path;
    let mismatch = |field, declared: String, computed: String| PushError::Mismatch {
        path: path.clone(),
        field,
        declared,
        computed,
    };
    if info.nar_hash != facts.nar_hash {
        return Err(mismatch("NarHash", info.nar_hash.to_string(), facts.nar_hash.to_string()));
    }
    if info.nar_size != facts.nar_size {
        return Err(mismatch("NarSize", info.nar_size.to_string(), facts.nar_size.to_string()));
    }
    for reference in &info.references {
        if facts.references.contains(&reference.hash()) == Some(false) {
            return Err(PushError::NotReferred {
                path: path.clone(),
                reference: reference.clone(),
            });
        }
    }
    let refers_to_itself = facts.references.contains(&path.hash()) == Some(true);
    if refers_to_itself && !info.references.contains(path) {
        return Err(PushError::SelfReference { path: path.clone() });
    }
    Ok(())
}

/// Holds FileHash and FileSize of a narinfo against the bytes that came, where it has them.
///
/// Those of the bare NAR are as true of it, however it came: somebody else may have brought the same
/// NAR compressed, under the name that the bare one has as well.
pub(super) fn check_file(narinfo: &NarInfo, facts: &Facts) -> Result<(), PushError> {
    let mismatch = |field, declared: String, computed: String| PushError::Mismatch {
        path: narinfo.info.path.clone(),
        field,
        declared,
        computed,
    };
    match narinfo.file_hash {
        Some(hash) if hash != facts.received_hash && hash != facts.nar_hash => {
            return Err(mismatch("FileHash", hash.to_string(), facts.received_hash.to_string()));
        }
        _ => {}
    }
    match narinfo.file_size {
        Some(size) if size != facts.received_size && size != facts.nar_size => {
            Err(mismatch("FileSize", size.to_string(), facts.received_size.to_string()))
        }
        _ => Ok(()),
    }
}

impl Policy {
    /// The signatures of a path that are kept, and whether it may be taken at all.
    ///
    /// A signature by a key that we know must be right. Our own (`own`) are made anew on the way out
    /// and not kept. Those of strangers are kept where every path of a pusher is taken: a client may
    /// know the key.
    pub(super) fn judge(
        &self,
        store_dir: &StoreDir,
        info: &PathInfo,
        own: &[PublicKey],
        is_content_addressed: bool,
    ) -> Result<Vec<Signature>, PushError> {
        let text = fingerprint(store_dir, info);
        self.judge_text(&info.path, &info.signatures, &text, own, is_content_addressed)
    }

    /// As [`Self::judge`], of the `text` that was signed; `is_trusted` if it is without a signature.
    pub(super) fn judge_text(
        &self,
        path: &StorePath,
        signatures: &[Signature],
        text: &str,
        own: &[PublicKey],
        mut is_trusted: bool,
    ) -> Result<Vec<Signature>, PushError> {
        let mut kept: Vec<Signature> = Vec::new();
        for signature in signatures {
            let known = |keys: &[PublicKey]| -> Option<bool> {
                let mut same = keys.iter().filter(|key| key.name() == signature.key_name());
                let first = same.next()?;
                Some(
                    first.verifies(text, signature)
                        || same.any(|key| key.verifies(text, signature)),
                )
            };
            let verdicts = [known(own), known(&self.trusted_keys), known(&self.upstream_keys)];
            if verdicts.contains(&Some(true)) {
                is_trusted |= verdicts[0] == Some(true) || verdicts[1] == Some(true);
            } else if verdicts.contains(&Some(false)) {
                return Err(PushError::BadSignature {
                    path: path.clone(),
                    key: signature.key_name().to_string(),
                });
            } else if self.accept == Accept::Trusted {
                continue;
            }
            if verdicts[0].is_none() && !kept.contains(signature) {
                kept.push(signature.clone());
            }
        }
        if self.accept == Accept::Trusted && !is_trusted {
            return Err(PushError::Untrusted { path: path.clone() });
        }
        Ok(kept)
    }

    /// Whether a key that this cache knows signed the path; its own are `own`.
    pub(super) fn vouches(&self, store_dir: &StoreDir, info: &PathInfo, own: &[PublicKey]) -> bool {
        let text = fingerprint(store_dir, info);
        let keys = || own.iter().chain(&self.trusted_keys).chain(&self.upstream_keys);
        info.signatures.iter().any(|signature| keys().any(|key| key.verifies(&text, signature)))
    }

    /// The signatures of a path but for those that bear the name of a key that this cache knows and are not by it:
    /// elsewhere another key may have the same name. Its own are `own`.
    pub(super) fn believable(
        &self,
        store_dir: &StoreDir,
        info: &PathInfo,
        own: &[PublicKey],
    ) -> Vec<Signature> {
        let text = fingerprint(store_dir, info);
        let keys = || own.iter().chain(&self.trusted_keys).chain(&self.upstream_keys);
        let is_believable = |signature: &&Signature| !is_forged(keys(), &text, signature);
        info.signatures.iter().filter(is_believable).cloned().collect()
    }

    /// Whether an upstream signed the path.
    pub(super) fn is_of_upstream(&self, store_dir: &StoreDir, info: &PathInfo) -> bool {
        let text = fingerprint(store_dir, info);
        info.signatures
            .iter()
            .any(|signature| self.upstream_keys.iter().any(|key| key.verifies(&text, signature)))
    }
}
