//! What is known of a valid store path, wherever it lies.

use serde::{Deserialize, Serialize};

use super::hash::Sha256;
use super::signature::Signature;
use super::store_path::StorePath;

/// A valid path: the signed facts (path, NarHash, NarSize, references) and the unsigned ones.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathInfo {
    /// The path itself.
    pub path: StorePath,
    /// SHA-256 of the uncompressed NAR.
    pub nar_hash: Sha256,
    /// Bytes of the uncompressed NAR.
    pub nar_size: u64,
    /// Sorted, without doubles; the path itself is among them if it refers to itself.
    #[serde(default)]
    pub references: Vec<StorePath>,
    /// The derivation that made it, where that is known.
    #[serde(default)]
    pub deriver: Option<StorePath>,
    /// The signatures it came with.
    #[serde(default)]
    pub signatures: Vec<Signature>,
    /// The content address, as in `fixed:r:sha256:…`; makes a path trusted without a signature.
    #[serde(default)]
    pub ca: Option<String>,
}

impl PathInfo {
    /// A path without references, deriver, signatures or content address.
    pub const fn new(path: StorePath, nar_hash: Sha256, nar_size: u64) -> Self {
        Self {
            path,
            nar_hash,
            nar_size,
            references: Vec::new(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        }
    }
}
