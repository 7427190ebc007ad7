//! The key ring: loads secret keys, signs, verifies. The only module that holds secret bytes.
//!
//! A secret key file is Nix's: `name:base64` of 64 bytes, seed and public key. A file that others
//! can read is refused, but for systemd credentials, whose directory is private already.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::nix::base64;
use crate::nix::signature::{KeyName, Signature, SignatureError};

/// A key file is one line; more than this is something else.
const MAX_KEY_FILE: u64 = 4096;

/// Why a key could not be had. No message holds secret bytes.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "key file {path} has mode {mode:04o}: others can read it. \
         Run `chmod 0600 {path}`, and make a new key if they may have read it"
    )]
    Readable {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not `name:base64`.
    #[error("key file {path} is not `name:base64` of an ed25519 {kind} key: {why}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Secret or public.
        kind: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name is none.
    #[error(transparent)]
    Name(#[from] SignatureError),
    /// The system has no random bytes.
    #[error("the system gave no random bytes for a key: {0}")]
    Random(getrandom::Error),
}

/// A key that signs.
pub struct SecretKey {
    name: KeyName,
    key: SigningKey,
}

/// Whether a signature bears the name of one of `keys`, and is by none of that name.
pub fn is_forged<'a>(
    keys: impl Iterator<Item = &'a PublicKey>,
    text: &str,
    signature: &Signature,
) -> bool {
    let mut same = keys.filter(|key| key.name() == signature.key_name()).peekable();
    same.peek().is_some() && !same.any(|key| key.verifies(text, signature))
}

/// What a client needs to trust a [`SecretKey`]: `name:base64` of 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: KeyName,
    key: VerifyingKey,
}

/// The keys of a cache, in the order in which they sign.
#[derive(Default)]
pub struct KeyRing(Vec<SecretKey>);

impl SecretKey {
    /// Makes a new key from the system's random bytes.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut()).map_err(KeyError::Random)?;
        Ok(Self { name, key: SigningKey::from_bytes(&seed) })
    }

    /// Reads a key file that nobody else can read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file_error = |source| KeyError::File { path: path.into(), source };
        let file = File::open(path).map_err(file_error)?;
        let mode = file.metadata().map_err(file_error)?.mode() & 0o777;
        if mode & 0o077 != 0 && !is_credential(path) {
            return Err(KeyError::Readable { path: path.into(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(file_error)?;
        Self::parse(text.trim()).map_err(|why| KeyError::Format {
            path: path.into(),
            kind: "secret",
            why,
        })
    }

    /// Loads the key at `path`, or makes one of the name `name` there, mode 0600, durably.
    pub fn load_or_create(path: &Path, name: KeyName) -> Result<Self, KeyError> {
        if path.try_exists().map_err(|source| KeyError::File { path: path.into(), source })? {
            return Self::load(path);
        }
        let key = Self::generate(name)?;
        key.save(path)?;
        Ok(key)
    }

    /// Writes the key to a new file, mode 0600: whole or not at all, and never over another.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let file_error = |source| KeyError::File { path: path.into(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let temporary = directory.join(format!(".{}.{}", self.name, std::process::id()));
        let written = self.write_new(&temporary).and_then(|()| {
            // A link, unlike a rename, fails where the name is taken.
            std::fs::hard_link(&temporary, path)
        });
        let removed = std::fs::remove_file(&temporary);
        written.and(removed).map_err(file_error)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(file_error)
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        let bytes = Zeroizing::new(self.key.to_keypair_bytes());
        let base64 = Zeroizing::new(BASE64.encode(bytes.as_ref()));
        writeln!(file, "{}:{}", self.name, base64.as_str())?;
        file.sync_all()
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, base64) = text.split_once(':').ok_or("there is no colon")?;
        let name = KeyName::parse(name).map_err(|_| "the name before the colon is not valid")?;
        let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| "what follows is not base64")?;
        let bytes = Zeroizing::new(bytes);
        let bytes: &[u8; 64] =
            bytes.as_slice().try_into().map_err(|_| "it does not have 64 bytes")?;
        let key = SigningKey::from_keypair_bytes(bytes)
            .map_err(|_| "its public half does not belong to its secret half")?;
        Ok(Self { name, key })
    }

    /// Signs a text, such as a path's fingerprint; tens of microseconds, so answers remember it.
    pub fn sign(&self, text: &str) -> Signature {
        Signature::new(self.name.clone(), self.key.sign(text.as_bytes()).to_bytes())
    }

    /// The half that clients get.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }
}

/// Whether systemd passed the file as a credential (`$CREDENTIALS_DIRECTORY`).
fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.starts_with(directory))
}

impl PublicKey {
    /// Reads `name:base64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digits) = text.split_once(':')?;
        let bytes = base64::decode(digits)?;
        let key = VerifyingKey::from_bytes(&bytes).ok()?;
        Some(Self { name: KeyName::parse(name).ok()?, key })
    }

    /// The name that signatures by it carry.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// Whether `signature` is this key's, of `text`.
    pub fn verifies(&self, text: &str, signature: &Signature) -> bool {
        let signature_bytes = ed25519_dalek::Signature::from_bytes(signature.bytes());
        signature.key_name() == &self.name
            && self.key.verify_strict(text.as_bytes(), &signature_bytes).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl KeyRing {
    /// Takes keys in the order in which they are to sign.
    pub const fn new(keys: Vec<SecretKey>) -> Self {
        Self(keys)
    }

    /// One signature a key.
    pub fn sign(&self, text: &str) -> Vec<Signature> {
        self.0.iter().map(|key| key.sign(text)).collect()
    }

    /// The public keys, for `trusted-public-keys`.
    pub fn public(&self) -> Vec<PublicKey> {
        self.0.iter().map(SecretKey::public).collect()
    }

    /// How many keys there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is signed.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key() -> SecretKey {
        SecretKey::generate(KeyName::parse("test-1").unwrap()).unwrap()
    }

    #[test]
    fn a_saved_key_is_private_and_signs_the_same_after_it_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = SecretKey::load_or_create(&path, KeyName::parse("test-1").unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let loaded = SecretKey::load(&path).unwrap();
        assert_eq!(made.sign("x"), loaded.sign("x"));
        assert!(made.public().verifies("x", &loaded.sign("x")));
        assert!(!made.public().verifies("y", &loaded.sign("x")));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_is_never_written_over_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        key().save(&path).unwrap();
        assert!(key().save(&path).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        key().save(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = SecretKey::load(&path).err().unwrap().to_string();
        assert!(error.contains("0640") && error.contains("chmod 0600"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_without_showing_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "no colon", "name:!", "name:c2VjcmV0", "bad name:AAAA"] {
            let path = directory.path().join("key");
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
            let error = SecretKey::load(&path).err().unwrap();
            assert!(matches!(error, KeyError::Format { .. }), "{text:?}");
            assert!(!error.to_string().contains("c2VjcmV0"));
        }
    }

    #[test]
    fn a_public_key_reads_back_what_it_prints() {
        let public = key().public();
        assert_eq!(PublicKey::parse(&public.to_string()), Some(public));
        assert_eq!(PublicKey::parse("x"), None);
    }
}
