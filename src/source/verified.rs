//! A NAR on its way out, hashed as it passes, whose last bytes are held back until they are right.
//!
//! An answer of a known length that lacks its last bytes can never be taken for whole, so a client
//! gets the right bytes or a broken connection.

use bytes::Bytes;

use crate::nix::hash::{Hasher, Sha256};
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;

/// What a NAR must turn out to be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// For messages: the path, or the NarHash where the path is not known any more.
    pub name: String,
    /// The path, where it is known.
    pub path: Option<StorePathHash>,
    /// By the database or narinfo.
    pub nar_hash: Sha256,
    /// By the database or narinfo.
    pub nar_size: u64,
}

impl From<&PathInfo> for Expected {
    fn from(info: &PathInfo) -> Self {
        Self {
            name: info.path.to_string(),
            path: Some(info.path.hash()),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
        }
    }
}

/// Why an answer cannot be completed once it has begun.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The bytes are not those of the NarHash.
    #[error(
        "the NAR of {path} is {got} of {got_size} bytes, but should be {expected} of \
         {expected_size}: repair it with `nix-store --repair-path`, or push it again"
    )]
    Mismatch {
        /// Which path.
        path: String,
        /// By the database or narinfo.
        expected: Sha256,
        /// By the database or narinfo.
        expected_size: u64,
        /// As read.
        got: Sha256,
        /// As read.
        got_size: u64,
    },
    /// Reading failed half way.
    #[error("reading {path} failed: {why}")]
    Read {
        /// Which path.
        path: String,
        /// What happened.
        why: String,
    },
}

impl From<std::io::Error> for TransferError {
    fn from(error: std::io::Error) -> Self {
        Self::Read { path: "a NAR".into(), why: error.to_string() }
    }
}

/// Passes chunks on, one late.
pub struct Verified<I> {
    chunks: I,
    expected: Expected,
    hasher: Option<Hasher>,
    held: Option<Bytes>,
}

impl<I> Verified<I> {
    /// `chunks` must be the whole NAR.
    pub fn new(chunks: I, expected: Expected) -> Self {
        Self { chunks, expected, hasher: Some(Hasher::default()), held: None }
    }
}

impl<I, E> Iterator for Verified<I>
where
    I: Iterator<Item = Result<Bytes, E>>,
    E: std::fmt::Display,
{
    type Item = Result<Bytes, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let hasher = self.hasher.as_mut()?;
            match self.chunks.next() {
                Some(Ok(chunk)) => {
                    hasher.update(&chunk);
                    if let Some(earlier) = self.held.replace(chunk) {
                        return Some(Ok(earlier));
                    }
                }
                Some(Err(error)) => {
                    self.hasher = None;
                    return Some(Err(TransferError::Read {
                        path: self.expected.name.clone(),
                        why: error.to_string(),
                    }));
                }
                None => {
                    let (got, got_size) = self.hasher.take()?.finish();
                    return self.last(got, got_size);
                }
            }
        }
    }
}

impl<I> Verified<I> {
    fn last(&mut self, got: Sha256, got_size: u64) -> Option<Result<Bytes, TransferError>> {
        let Expected { name, nar_hash, nar_size, .. } = &self.expected;
        if (got, got_size) == (*nar_hash, *nar_size) {
            return self.held.take().map(Ok);
        }
        Some(Err(TransferError::Mismatch {
            path: name.clone(),
            expected: *nar_hash,
            expected_size: *nar_size,
            got,
            got_size,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(content: &[u8]) -> Expected {
        let (nar_hash, nar_size) = (Sha256::of(content), content.len() as u64);
        Expected { name: "x".into(), path: None, nar_hash, nar_size }
    }

    fn chunks(parts: &[&'static str]) -> impl Iterator<Item = Result<Bytes, std::io::Error>> {
        parts
            .iter()
            .map(|part| Ok(Bytes::from_static(part.as_bytes())))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn right_bytes_pass_whole() {
        let passed: Result<Vec<_>, _> =
            Verified::new(chunks(&["ab", "c", "d"]), info(b"abcd")).collect();
        assert_eq!(passed.unwrap().concat(), b"abcd");
    }

    #[test]
    fn wrong_short_and_long_bytes_never_end_cleanly_and_their_last_chunk_is_not_sent() {
        for parts in [&["ab", "cX"][..], &["ab"], &["ab", "cd", "e"], &[]] {
            let passed: Vec<_> = Verified::new(chunks(parts), info(b"abcd")).collect();
            assert!(
                matches!(passed.last(), Some(Err(TransferError::Mismatch { .. }))),
                "{parts:?}"
            );
            let sent: usize = passed.iter().flatten().map(Bytes::len).sum();
            assert!(sent < 4 || parts.len() == 3, "{parts:?}");
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let failing = [Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("disk"))];
        let passed: Vec<_> = Verified::new(failing.into_iter(), info(b"abcd")).collect();
        assert!(matches!(passed[..], [Err(TransferError::Read { .. })]));
    }
}
