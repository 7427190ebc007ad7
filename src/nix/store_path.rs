//! Store paths: `<store dir>/<32 digits>-<name>`.

use std::fmt;
use std::sync::Arc;

use super::base32;
use super::hash::shorten;

/// The longest name that Nix allows after the hash and the dash.
pub const MAX_NAME_LEN: usize = 211;

/// The hash part of a store path, 20 bytes, written as 32 digits: what a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePathHash([u8; 20]);

/// The base name of a store path: `<32 digits>-<name>`, checked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Box<str>);

/// The logical store directory, such as `/nix/store`: absolute, without a slash at its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreDir(Arc<str>);

/// Why a text is not a store path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StorePathError {
    /// Another store directory, or none.
    #[error("{path:?} is not in the store directory {store_dir:?}")]
    OtherStore {
        /// The path as it was given.
        path: String,
        /// The directory it should be in.
        store_dir: String,
    },
    /// The 32 digits are not there, or not Nix's.
    #[error("{0:?} does not begin with 32 digits of Nix base 32 and a dash")]
    Hash(String),
    /// Empty, too long, or with a character that Nix does not allow.
    #[error("{0:?} has a name that Nix does not allow (1 to 211 of 0-9 a-z A-Z + - . _ ? =)")]
    Name(String),
    /// Not absolute, or with a slash at its end.
    #[error("store directory {0:?} must be absolute, normalised and without a slash at its end")]
    StoreDir(String),
}

impl StorePathHash {
    /// Reads exactly 32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        base32::decode(text.as_bytes()).map(Self)
    }

    /// The hash of `/nix/store/<hash>-<name>`, `<hash>-<name>` or `<hash>`, as people write a path.
    pub fn in_text(text: &str) -> Option<Self> {
        let base = text.trim_end_matches('/').rsplit('/').next()?;
        Self::parse(base.split_once('-').map_or(base, |(hash, _)| hash))
    }

    /// The 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Builds one from its bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its first four bytes as a number, which is evenly spread and in the order of the hashes.
    pub const fn prefix(&self) -> u32 {
        let [first, second, third, fourth, ..] = self.0;
        u32::from_be_bytes([first, second, third, fourth])
    }
}

#[cfg(test)]
impl StorePathHash {
    /// One that has this prefix, the same each time.
    pub fn of_prefix(prefix: u32) -> Self {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&prefix.to_be_bytes());
        Self(bytes)
    }
}

impl fmt::Display for StorePathHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for StorePathHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl StorePath {
    /// Reads a base name, `<32 digits>-<name>`.
    pub fn parse(base_name: &str) -> Result<Self, StorePathError> {
        let bytes = base_name.as_bytes();
        let hash_is_valid = bytes.len() > 33
            && bytes.get(32) == Some(&b'-')
            && bytes.get(..32).and_then(base32::decode::<20>).is_some();
        if !hash_is_valid {
            return Err(StorePathError::Hash(shorten(base_name)));
        }
        let name = &bytes[33..];
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
        if name.len() > MAX_NAME_LEN || !name.iter().all(legal) || is_dotted(name) {
            return Err(StorePathError::Name(shorten(base_name)));
        }
        Ok(Self(base_name.into()))
    }

    /// The 32 digits as bytes.
    pub fn hash(&self) -> StorePathHash {
        match base32::decode(&self.0.as_bytes()[..32]) {
            Some(bytes) => StorePathHash(bytes),
            None => {
                unreachable!("a StorePath is made by `parse` only, which decoded the same digits")
            }
        }
    }

    /// What follows the hash and the dash.
    pub fn name(&self) -> &str {
        &self.0[33..]
    }

    /// `<32 digits>-<name>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Nix refuses `.`, `..` and names that begin with one of them and a dash.
fn is_dotted(name: &[u8]) -> bool {
    name == b"." || name == b".." || name.starts_with(b".-") || name.starts_with(b"..-")
}

impl fmt::Display for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl StoreDir {
    /// Reads an absolute directory.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        let normal = text.starts_with('/')
            && text.len() > 1
            && text[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && !text.contains(['\n', '\0']);
        if normal { Ok(Self(text.into())) } else { Err(StorePathError::StoreDir(shorten(text))) }
    }

    /// The directory as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The full path of `path`.
    pub fn join(&self, path: &StorePath) -> String {
        format!("{}/{path}", self.0)
    }

    /// Reads a full path that must lie directly in this directory.
    pub fn parse_path(&self, full: &str) -> Result<StorePath, StorePathError> {
        let base_name = full.strip_prefix(&*self.0).and_then(|rest| rest.strip_prefix('/'));
        match base_name {
            Some(base_name) => StorePath::parse(base_name),
            None => Err(StorePathError::OtherStore {
                path: shorten(full),
                store_dir: self.0.to_string(),
            }),
        }
    }
}

impl Default for StoreDir {
    fn default() -> Self {
        Self("/nix/store".into())
    }
}

impl fmt::Display for StoreDir {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_whole_or_by_its_last_part_or_by_its_hash() {
        let hash = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a";
        let expected = StorePathHash::parse(hash);
        assert!(expected.is_some());
        for text in [
            hash.to_owned(),
            format!("{hash}-hello-2.10"),
            format!("/nix/store/{hash}-hello-2.10/"),
        ] {
            assert_eq!(StorePathHash::in_text(&text), expected, "{text}");
        }
        for text in ["", "/", "hello", "7rjj86a50146dq4pd5h2fyvnnwxk9m0e-x"] {
            assert_eq!(StorePathHash::in_text(text), None, "{text}");
        }
    }

    const HASH: &str = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a";

    #[test]
    fn a_store_path_gives_back_its_parts() {
        let path =
            StoreDir::default().parse_path(&format!("/nix/store/{HASH}-hello-2.12")).unwrap();
        assert_eq!((path.hash().to_string().as_str(), path.name()), (HASH, "hello-2.12"));
        assert_eq!(StoreDir::default().join(&path), format!("/nix/store/{HASH}-hello-2.12"));
    }

    #[test]
    fn names_that_nix_refuses_are_refused() {
        for name in ["", ".", "..", ".-x", "..-x", "a/b", "a b", "ä", "a\n", &"x".repeat(212)] {
            assert!(StorePath::parse(&format!("{HASH}-{name}")).is_err(), "{name:?}");
        }
        for name in [".x", "...", "a+b-c.d_e?f=g", &"x".repeat(211)] {
            assert!(StorePath::parse(&format!("{HASH}-{name}")).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn another_store_directory_is_named_in_the_error() {
        let error = StoreDir::default().parse_path(&format!("/gnu/store/{HASH}-x")).unwrap_err();
        assert!(matches!(error, StorePathError::OtherStore { .. }), "{error}");
    }

    #[test]
    fn a_store_directory_is_absolute_and_normal() {
        for bad in ["", "/", "nix/store", "/nix/store/", "/nix//store", "/nix/../store"] {
            assert!(StoreDir::parse(bad).is_err(), "{bad:?}");
        }
        assert!(StoreDir::parse("/tmp/x/store").is_ok());
    }
}
