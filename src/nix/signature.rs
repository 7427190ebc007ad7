//! Signatures, and the fingerprint that they sign.

use std::fmt;

use data_encoding::BASE64;

use super::base64;
use super::hash::shorten;
use super::path_info::PathInfo;
use super::store_path::StoreDir;

/// A detached ed25519 signature with the name of the key that made it: `name:base64`.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    key_name: KeyName,
    bytes: [u8; 64],
}

/// The name of a signing key, such as `cache.example.org-1`: not empty, no colon, no white space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyName(Box<str>);

/// Why a text is not a signature, or not the name of a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignatureError {
    /// No colon, or nothing before it.
    #[error("{0:?} has no `name:` of a key before its base64")]
    Name(String),
    /// Not the base64 of 64 bytes.
    #[error("{0:?} is not the base64 of a 64-byte ed25519 signature")]
    Bytes(String),
}

impl KeyName {
    /// The longest name taken; Nix has no limit, files and headers do.
    pub const MAX_LEN: usize = 200;

    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let legal = |character: char| character.is_ascii_graphic() && character != ':';
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.chars().all(legal) {
            return Err(SignatureError::Name(shorten(text)));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Signature {
    /// Joins a key's name and the bytes that it made.
    pub const fn new(key_name: KeyName, bytes: [u8; 64]) -> Self {
        Self { key_name, bytes }
    }

    /// Reads `name:base64`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let (name, digits) =
            text.split_once(':').ok_or_else(|| SignatureError::Name(shorten(text)))?;
        let bytes = base64::decode(digits).ok_or_else(|| SignatureError::Bytes(shorten(text)))?;
        Ok(Self { key_name: KeyName::parse(name)?, bytes })
    }

    /// The name of the key that signed.
    pub const fn key_name(&self) -> &KeyName {
        &self.key_name
    }

    /// The 64 bytes.
    pub const fn bytes(&self) -> &[u8; 64] {
        &self.bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.key_name, BASE64.encode(&self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The text that a path's signature signs: `1;<path>;<NarHash>;<NarSize>;<references>`, with full
/// paths, sorted and joined by commas (`fingerprint` in Nix's `path-info.cc`).
pub fn fingerprint(store_dir: &StoreDir, info: &PathInfo) -> String {
    let PathInfo { path, nar_hash, nar_size, references, .. } = info;
    let mut text = format!("1;{store_dir}/{path};{nar_hash};{nar_size};");
    for (position, reference) in references.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        text.push_str(store_dir.as_str());
        text.push('/');
        text.push_str(reference.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::hash::Sha256;
    use super::super::store_path::StorePath;
    use super::*;

    #[test]
    fn the_fingerprint_has_full_paths_joined_by_commas() {
        let path = |name: &str| StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap();
        let info = PathInfo {
            references: vec![path("a"), path("b")],
            ..PathInfo::new(path("x"), Sha256::of(b""), 0)
        };
        let zeros = "0".repeat(32);
        assert_eq!(
            fingerprint(&StoreDir::default(), &info),
            format!(
                "1;/nix/store/{zeros}-x;sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73;0;\
                 /nix/store/{zeros}-a,/nix/store/{zeros}-b"
            )
        );
    }

    #[test]
    fn a_signature_reads_back_what_it_prints() {
        let signature = Signature::new(KeyName::parse("cache-1").unwrap(), [7; 64]);
        assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for bad in ["", "name", ":AAAA", "a b:AAAA", "name:AAAA", "name:!"] {
            assert!(Signature::parse(bad).is_err(), "{bad:?}");
        }
    }
}
