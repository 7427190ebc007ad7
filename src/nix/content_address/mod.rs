//! Content addresses: paths whose name says what is in them.
//!
//! Such a path needs no signature: whoever has the content can compute the path. So what a narinfo
//! claims in its `CA:` field is worth as much as the computation, which is done here as Nix does it:
//!
//! | claim | hash of | references |
//! |---|---|---|
//! | `text:sha256:…` | the file (`builtins.toFile`, derivations) | others, not itself |
//! | `fixed:<algorithm>:…` | the file (`fetchurl`) | none |
//! | `fixed:r:sha256:…` | the NAR (`nix store add-path`, content-addressed derivations) | any |
//! | `fixed:r:<other algorithm>:…` | the NAR | none |
//!
//! A path that refers to itself is hashed with its own hash replaced by zeros. Older Nix (2.8.0) hashes
//! the offsets of these places as well, newer Nix (2.26.3) does not, and either is taken. Newer Nix
//! cannot tell a NAR in which some of these places are zeros already, and so neither can we.

mod digest;
mod verify;

use sha2::{Digest as _, Sha256 as Sha256State};

use super::hash::{Sha256, shorten};
use super::nar::NarError;
use super::store_path::{StoreDir, StorePath, StorePathHash};

pub use digest::{Algorithm, Digest};
pub use verify::Verifier;

/// What a `CA:` field claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentAddress {
    /// A text file, which may refer to other paths.
    Text(Digest),
    /// A single file.
    Flat(Digest),
    /// A NAR.
    Recursive(Digest),
    /// A form that Nix knows and that is not verified here: a git tree, or BLAKE3.
    Unverifiable(String),
}

/// Why a content address does not prove its path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContentAddressError {
    /// Not one that Nix writes.
    #[error("{0:?} is not a content address")]
    Malformed(String),
    /// One of a kind that is not verified.
    #[error("content addresses of the kind {0:?} are not verified here: sign the path")]
    Unverifiable(String),
    /// References that a path of this kind cannot have.
    #[error("a path with the content address {claimed} cannot refer to {reference}")]
    References {
        /// The claim.
        claimed: String,
        /// The first reference too many.
        reference: StorePath,
    },
    /// The claim is of another path.
    #[error("the content address is that of {computed}, not of {claimed}")]
    Path {
        /// What was claimed.
        claimed: StorePath,
        /// Which path such content has.
        computed: String,
    },
    /// The content has another hash.
    #[error("the content address is {computed}, not {claimed} as was claimed")]
    Content {
        /// What was claimed.
        claimed: String,
        /// What it is.
        computed: String,
    },
    /// A hash of a file is claimed for something that is not a file, or for a program.
    #[error(
        "the content address {0} is of a file that is not executable, and this is something else"
    )]
    NotAFile(String),
    /// The bytes are not a NAR.
    #[error(transparent)]
    Nar(#[from] NarError),
}

impl ContentAddress {
    /// Reads `text:…` or `fixed:…`.
    pub fn parse(text: &str) -> Result<Self, ContentAddressError> {
        let malformed = || ContentAddressError::Malformed(shorten(text));
        let unverifiable = || Ok(Self::Unverifiable(shorten(text)));
        let (kind, rest) = text.split_once(':').ok_or_else(malformed)?;
        let (make, rest): (fn(Digest) -> Self, _) = match (kind, rest.split_once(':')) {
            ("text", _) => (Self::Text, rest),
            ("fixed", Some(("r", rest))) => (Self::Recursive, rest),
            ("fixed", Some(("git", _))) => return unverifiable(),
            ("fixed", _) => (Self::Flat, rest),
            _ => return Err(malformed()),
        };
        let (algorithm, digits) = rest.split_once(':').ok_or_else(malformed)?;
        if algorithm == "blake3" && kind == "fixed" {
            return unverifiable();
        }
        let algorithm = Algorithm::parse(algorithm).ok_or_else(malformed)?;
        if kind == "text" && algorithm != Algorithm::Sha256 {
            return Err(malformed());
        }
        Digest::parse(algorithm, digits).map(make).ok_or_else(malformed)
    }

    /// Whether the NarHash alone shows that content is what the claim says, so that it need not be
    /// read again. The path is another question: [`Self::check_path`].
    pub fn is_nar_hash(&self, nar_hash: Sha256) -> bool {
        matches!(self, Self::Recursive(digest) if digest.sha256() == Some(nar_hash))
    }

    /// Whether it is by a hash of which another content can be made: MD5 or SHA-1.
    pub fn is_collision_prone(&self) -> bool {
        match self {
            Self::Text(digest) | Self::Flat(digest) | Self::Recursive(digest) => {
                matches!(digest.algorithm(), Algorithm::Md5 | Algorithm::Sha1)
            }
            Self::Unverifiable(_) => true,
        }
    }

    /// Holds against a path and its references (sorted, as in a narinfo) that content of this address
    /// would have just that path.
    pub fn check_path(
        &self,
        path: &StorePath,
        references: &[StorePath],
        store_dir: &StoreDir,
    ) -> Result<(), ContentAddressError> {
        let others = || references.iter().filter(|reference| *reference != path);
        let refers_to_itself = references.contains(path);
        let refuse = |reference: Option<&StorePath>| match reference {
            Some(reference) => Err(ContentAddressError::References {
                claimed: self.to_string(),
                reference: reference.clone(),
            }),
            None => Ok(()),
        };
        let typed = |kind: &str| {
            let mut kind = kind.to_owned();
            for reference in others() {
                kind = format!("{kind}:{}", store_dir.join(reference));
            }
            if refers_to_itself { kind + ":self" } else { kind }
        };
        let (kind, hash) = match self {
            Self::Unverifiable(claim) => {
                return Err(ContentAddressError::Unverifiable(claim.clone()));
            }
            Self::Text(digest) => {
                refuse(references.iter().find(|reference| *reference == path))?;
                (typed("text"), digest.to_hex())
            }
            Self::Recursive(digest) if digest.algorithm() == Algorithm::Sha256 => {
                (typed("source"), digest.to_hex())
            }
            Self::Flat(digest) | Self::Recursive(digest) => {
                refuse(references.first())?;
                let prefix = if matches!(self, Self::Recursive(_)) { "r:" } else { "" };
                let fixed = format!("fixed:out:{prefix}{}:", digest.to_hex());
                ("output:out".to_owned(), hex_sha256(&fixed))
            }
        };
        let text = format!("{kind}:{hash}:{store_dir}:{}", path.name());
        let computed = compress(Sha256::of(text.as_bytes()));
        if computed == path.hash() {
            return Ok(());
        }
        Err(ContentAddressError::Path {
            claimed: path.clone(),
            computed: format!("{computed}-{}", path.name()),
        })
    }
}

/// As in a narinfo.
impl std::fmt::Display for ContentAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(digest) => write!(formatter, "text:{digest}"),
            Self::Flat(digest) => write!(formatter, "fixed:{digest}"),
            Self::Recursive(digest) => write!(formatter, "fixed:r:{digest}"),
            Self::Unverifiable(claim) => formatter.write_str(claim),
        }
    }
}

fn hex_sha256(text: &str) -> String {
    let digest = Sha256State::digest(text.as_bytes());
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&digest))
}

/// A hash folded upon itself until it has the 20 bytes of a store path's.
fn compress(hash: Sha256) -> StorePathHash {
    let mut folded = [0; 20];
    for (index, byte) in hash.0.iter().enumerate() {
        folded[index % 20] ^= byte;
    }
    StorePathHash::from_bytes(folded)
}

#[cfg(test)]
mod tests;
