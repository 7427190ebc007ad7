//! SHA-256 digests and the ways Nix writes them.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256 as Sha256State};

use super::{base32, base64};

/// A SHA-256 digest: a NarHash, a FileHash, or any other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// Why a text is not a SHA-256 hash as Nix writes one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HashError {
    /// Only sha256 is in use for NARs.
    #[error("hash {0:?} is not sha256; NARs are hashed with sha256 only")]
    Algorithm(String),
    /// Neither nix32 (52), hex (64), base64 (44) nor SRI.
    #[error("{0:?} is not a sha256 digest in nix32, hexadecimal, base64 or SRI form")]
    Digest(String),
}

impl Sha256 {
    /// Hashes `bytes` at once.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256State::digest(bytes).into())
    }

    /// Reads 52 digits of Nix base 32 (the form in URLs and file names).
    pub fn from_nix32(text: &str) -> Option<Self> {
        base32::decode(text.as_bytes()).map(Self)
    }

    /// Writes 52 digits of Nix base 32, without the algorithm.
    pub fn to_nix32(self) -> String {
        base32::encode(&self.0)
    }

    /// Writes `sha256-<base64>`, as JSON of newer Nix has it.
    pub fn to_sri(self) -> String {
        format!("sha256-{}", BASE64.encode(&self.0))
    }

    /// Reads `sha256:<nix32|hex|base64>` or `sha256-<base64>`; a narinfo may hold any of them, and
    /// the Nix database holds hexadecimal.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let bad = || HashError::Digest(shorten(text));
        if let Some(digest) = text.strip_prefix("sha256-") {
            return from_base64(digest).ok_or_else(bad);
        }
        let Some((algorithm, digest)) = text.split_once(':') else { return Err(bad()) };
        if algorithm != "sha256" {
            return Err(HashError::Algorithm(shorten(algorithm)));
        }
        match digest.len() {
            52 => Self::from_nix32(digest),
            64 => HEXLOWER_PERMISSIVE
                .decode(digest.as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .map(Self),
            44 => from_base64(digest),
            _ => None,
        }
        .ok_or_else(bad)
    }
}

fn from_base64(digest: &str) -> Option<Sha256> {
    base64::decode(digest).map(Sha256)
}

/// Error messages quote what came in, but never more than a line of it.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

/// `sha256:<nix32>`, as a narinfo has it.
impl fmt::Display for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.to_nix32())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A SHA-256 that is still being fed, with the count of what it was fed.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256State,
    bytes: u64,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The digest and the number of bytes that it is of.
    pub fn finish(self) -> (Sha256, u64) {
        (Sha256(self.state.finalize().into()), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_form_that_nix_writes_reads_as_the_same_digest() {
        let empty = Sha256::of(b"");
        for text in [
            format!("sha256:{EMPTY_HEX}"),
            empty.to_string(),
            empty.to_sri(),
            format!("sha256:{}", &empty.to_sri()[7..]),
        ] {
            assert_eq!(Sha256::parse(&text), Ok(empty), "{text}");
        }
    }

    #[test]
    fn another_algorithm_is_named_in_the_error() {
        assert_eq!(Sha256::parse("md5:abc"), Err(HashError::Algorithm("md5".into())));
        assert!(matches!(Sha256::parse("sha256:abc"), Err(HashError::Digest(_))));
        assert!(matches!(Sha256::parse(""), Err(HashError::Digest(_))));
    }

    #[test]
    fn the_hasher_counts_what_it_hashed() {
        let mut hasher = Hasher::default();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), (Sha256::of(b"abc"), 3));
    }
}
