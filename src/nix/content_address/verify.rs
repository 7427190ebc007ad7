//! Computing the content address of a NAR, in one pass.

use memchr::memmem::Finder;

use super::digest::{Digest, Hasher};
use super::{ContentAddress, ContentAddressError};
use crate::nix::nar::{Event, Limits, Parser};
use crate::nix::store_path::{StoreDir, StorePath};

/// Takes the bytes of a NAR, in pieces of any size, and says whether they have the content address
/// that is claimed.
///
/// It trusts that they are the bytes of the NarHash that will be published; whoever reads them sees to
/// that.
pub struct Verifier {
    claim: ContentAddress,
    claimed: Digest,
    method: Method,
}

enum Method {
    File(Box<File>),
    Nar(Box<Modulo>),
}

/// The contents of a NAR that is a single file.
struct File {
    parser: Parser,
    hasher: Hasher,
    is_file: bool,
}

/// The hash of bytes in which the path's own hash is replaced by zeros.
struct Modulo {
    own: Finder<'static>,
    hasher: Hasher,
    /// The end of what came, which may be the beginning of an own hash; and the piece after it.
    held: Vec<u8>,
    /// How many bytes were hashed.
    hashed: u64,
    /// What the offsets of all replaced places are hashed from, as older Nix does.
    offsets: String,
    too_many: bool,
}

/// Digits in the hash of a store path.
const DIGITS: usize = 32;

/// How much text the offsets may make. Nobody has so many references to himself; what has is compared
/// as newer Nix does only.
const MAX_OFFSETS: usize = 8 << 20;

impl Verifier {
    /// Checks that content of the claimed address would have the claimed path (see
    /// [`ContentAddress::check_path`]), and prepares to look at the content.
    pub fn new(
        claim: ContentAddress,
        path: &StorePath,
        references: &[StorePath],
        store_dir: &StoreDir,
    ) -> Result<Self, ContentAddressError> {
        claim.check_path(path, references, store_dir)?;
        let (claimed, method) = match &claim {
            ContentAddress::Text(digest) | ContentAddress::Flat(digest) => {
                let hasher = Hasher::new(digest.algorithm());
                let parser = Parser::new(Limits { max_size: u64::MAX, ..Limits::default() });
                (digest, Method::File(Box::new(File { parser, hasher, is_file: true })))
            }
            ContentAddress::Recursive(digest) => {
                let own = Finder::new(path.hash().to_string().as_bytes()).into_owned();
                let hasher = Hasher::new(digest.algorithm());
                (digest, Method::Nar(Box::new(Modulo::new(own, hasher))))
            }
            ContentAddress::Unverifiable(claim) => {
                return Err(ContentAddressError::Unverifiable(claim.clone()));
            }
        };
        Ok(Self { claimed: claimed.clone(), method, claim })
    }

    /// Takes the next bytes of the NAR.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ContentAddressError> {
        match &mut self.method {
            Method::Nar(modulo) => modulo.push(bytes),
            Method::File(file) => {
                let File { parser, hasher, is_file } = &mut **file;
                parser.push(bytes, &mut |event| match event {
                    // Nix never makes a program of what it hashes as a file, and the hash would not
                    // say whether it is one.
                    Event::File { executable, .. } => *is_file &= !executable,
                    Event::Contents(contents) => hasher.update(contents),
                    Event::FileEnd => {}
                    _ => *is_file = false,
                })?;
                if !file.is_file {
                    return Err(ContentAddressError::NotAFile(self.claim.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Says whether all bytes together are what was claimed.
    pub fn finish(self) -> Result<(), ContentAddressError> {
        let (computed, older) = match self.method {
            Method::File(file) => {
                file.parser.finish()?;
                (file.hasher.finish(), None)
            }
            Method::Nar(modulo) => modulo.finish(),
        };
        if computed == self.claimed || older.is_some_and(|older| older == self.claimed) {
            return Ok(());
        }
        let computed = match &self.claim {
            ContentAddress::Text(_) => ContentAddress::Text(computed),
            ContentAddress::Recursive(_) => ContentAddress::Recursive(computed),
            _ => ContentAddress::Flat(computed),
        };
        let computed = computed.to_string();
        Err(ContentAddressError::Content { claimed: self.claim.to_string(), computed })
    }
}

impl Modulo {
    const fn new(own: Finder<'static>, hasher: Hasher) -> Self {
        Self { own, hasher, held: Vec::new(), hashed: 0, offsets: String::new(), too_many: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(found) = self.held.get(start..).and_then(|rest| self.own.find(rest)) {
            start += found;
            if self.offsets.len() < MAX_OFFSETS {
                self.offsets += &format!("|{}", self.hashed + start as u64);
            } else {
                self.too_many = true;
            }
            if let Some(own) = self.held.get_mut(start..start + DIGITS) {
                own.fill(0);
            }
            start += DIGITS;
        }
        self.hash(self.held.len().saturating_sub(DIGITS - 1));
    }

    /// Hashes so many of the held bytes.
    fn hash(&mut self, length: usize) {
        self.hasher.update(self.held.get(..length).unwrap_or_default());
        self.hashed += length as u64;
        self.held.drain(..length);
    }

    /// The hash, and that of older Nix if it is another one.
    fn finish(mut self) -> (Digest, Option<Digest>) {
        self.hash(self.held.len());
        let older = (!self.offsets.is_empty() && !self.too_many).then(|| {
            let mut hasher = self.hasher.clone();
            hasher.update(self.offsets.as_bytes());
            hasher.finish()
        });
        (self.hasher.finish(), older)
    }
}
