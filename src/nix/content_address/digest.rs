//! Digests of the algorithms that a content address may have.

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::Digest as _;

use super::super::base32;
use super::super::hash::Sha256;

/// How the content was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 128 bits. Whoever made the content can have made another one with the same hash.
    Md5,
    /// 160 bits. As [`Self::Md5`], at a higher price.
    Sha1,
    /// 256 bits.
    Sha256,
    /// 512 bits.
    Sha512,
}

/// A hash with its algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

impl Algorithm {
    /// The algorithm of a name as Nix has it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl Digest {
    /// Reads the digits of a hash, in Nix base 32, hexadecimal or base 64; the length tells which.
    pub(super) fn parse(algorithm: Algorithm, text: &str) -> Option<Self> {
        let size = algorithm.size();
        let bytes = text.as_bytes();
        let bytes: Box<[u8]> = if bytes.len() == base32::encoded_len(size) {
            match algorithm {
                Algorithm::Md5 => Box::new(base32::decode::<16>(bytes)?),
                Algorithm::Sha1 => Box::new(base32::decode::<20>(bytes)?),
                Algorithm::Sha256 => Box::new(base32::decode::<32>(bytes)?),
                Algorithm::Sha512 => Box::new(base32::decode::<64>(bytes)?),
            }
        } else if bytes.len() == 2 * size {
            HEXLOWER_PERMISSIVE.decode(bytes).ok()?.into()
        } else {
            BASE64.decode(bytes).ok()?.into()
        };
        (bytes.len() == size).then_some(Self { algorithm, bytes })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest, if it is a SHA-256.
    pub fn sha256(&self) -> Option<Sha256> {
        let bytes = self.bytes.as_ref().try_into().ok().map(Sha256);
        bytes.filter(|_| self.algorithm == Algorithm::Sha256)
    }

    /// `<algorithm>:<hexadecimal>`, as it goes into the making of a path.
    pub(super) fn to_hex(&self) -> String {
        format!("{}:{}", self.algorithm.name(), HEXLOWER.encode(&self.bytes))
    }
}

/// `<algorithm>:<Nix base 32>`, as in a narinfo.
impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.algorithm.name(), base32::encode(&self.bytes))
    }
}

/// A hash that is still being fed.
#[derive(Clone)]
pub(super) enum Hasher {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(md5::Md5::default()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::default()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::default()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::default()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(state) => state.update(bytes),
            Self::Sha1(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        let (algorithm, bytes): (_, Box<[u8]>) = match self {
            Self::Md5(state) => (Algorithm::Md5, state.finalize().to_vec().into()),
            Self::Sha1(state) => (Algorithm::Sha1, state.finalize().to_vec().into()),
            Self::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec().into()),
            Self::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec().into()),
        };
        Digest { algorithm, bytes }
    }
}
