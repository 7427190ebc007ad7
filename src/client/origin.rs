//! A binary cache that paths are taken from: a directory, or a server that speaks Nix's protocol.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use std::collections::HashSet;

use crate::bank::{Bank, BankError};
use crate::codec::{CodecError, Compression, Decoder, Limits, UnknownCompression};
use crate::nix::cache_info::CacheInfo;
use crate::nix::narinfo::{NarInfo, NarInfoError};
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};
use crate::source::upstream::connect::{Address, AddressError, AuthoritiesError};
use crate::source::upstream::{Upstream, UpstreamError};

/// How much of a NAR is read at once, in bytes.
const READ_BUFFER: usize = 256 << 10;
/// The most paths of one closure: their hashes are in memory, 20 bytes each.
const MAX_PATHS: usize = 8 << 20;

/// Where paths are taken from.
pub struct Origin {
    name: String,
    store_dir: StoreDir,
    kind: Kind,
}

enum Kind {
    Directory(Bank),
    Server(Box<Upstream>),
}

/// A NAR as it lies there.
pub struct OriginNar {
    /// Its bytes.
    pub body: Box<dyn Read + Send>,
    /// How they are compressed.
    pub compression: Compression,
    /// How many there are, where that is known.
    pub size: Option<u64>,
}

/// Why something cannot be taken from there.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Not the address of a cache.
    #[error("{0}, file:///PATH, or a directory")]
    Address(#[from] AddressError),
    /// The certificate authorities cannot be read.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// Nothing is there that looks like a cache.
    #[error("{0} is no binary cache: it has no nix-cache-info")]
    NoCache(PathBuf),
    /// A server has no list of what it holds.
    #[error(
        "{0}: a cache that is asked over HTTP cannot be listed; name the paths whose closures are wanted"
    )]
    NoList(String),
    /// What a server said.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// What the disk said.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// A narinfo that is none.
    #[error("{hash}.narinfo: {why}")]
    NarInfo {
        /// Of which path.
        hash: StorePathHash,
        /// What is wrong.
        why: NarInfoError,
    },
    /// A narinfo under another path's name.
    #[error("{hash}.narinfo is of another path, {path}")]
    OtherPath {
        /// Whose name it has.
        hash: StorePathHash,
        /// Whose it is.
        path: StorePath,
    },
    /// It is not there.
    #[error("{path} is not in {origin}")]
    NotThere {
        /// What.
        path: String,
        /// Where.
        origin: String,
    },
    /// The NAR is not there.
    #[error("{0} is not there, though its narinfo is")]
    NoNar(String),
    /// A form that is not read here.
    #[error(transparent)]
    Compression(#[from] UnknownCompression),
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] CodecError),
    /// More than is taken at once.
    #[error("more than {MAX_PATHS} paths belong to it")]
    TooMany,
}

impl Origin {
    /// Opens `file:///PATH`, a directory, `http://…` or `https://…`.
    pub fn open(
        text: &str,
        connections: usize,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, OriginError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Self::server(Address::parse(text)?, connections, lookup);
        }
        let directory = match text.strip_prefix("file://") {
            Some(path) => PathBuf::from(path.split('?').next().unwrap_or(path)),
            None if text.contains("://") => {
                return Err(Address::parse(text)
                    .err()
                    .map_or_else(|| OriginError::NoCache(text.into()), OriginError::Address));
            }
            None => PathBuf::from(text),
        };
        Self::directory(&directory)
    }

    fn directory(directory: &Path) -> Result<Self, OriginError> {
        let store_dir = Bank::store_dir_at(directory)
            .ok_or_else(|| OriginError::NoCache(directory.to_owned()))?;
        let info = CacheInfo { store_dir: store_dir.clone(), want_mass_query: true, priority: 0 };
        let bank = Bank::of_others(directory.to_owned(), info);
        let name = directory.display().to_string();
        Ok(Self { name, store_dir, kind: Kind::Directory(bank) })
    }

    fn server(
        address: Address,
        connections: usize,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, OriginError> {
        let name = address.url().to_owned();
        let upstream = Upstream::with_connections(address, connections, lookup)?;
        let said = upstream.info(None)?.store_dir;
        let store_dir = said.and_then(|text| StoreDir::parse(&text).ok()).unwrap_or_default();
        Ok(Self { name, store_dir, kind: Kind::Server(Box::new(upstream)) })
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store directory of its paths.
    pub const fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// All paths that it holds.
    pub fn all(&self) -> Result<Vec<StorePathHash>, OriginError> {
        let Kind::Directory(bank) = &self.kind else {
            return Err(OriginError::NoList(self.name.clone()));
        };
        let mut paths = Vec::new();
        bank.scan(|hash| paths.push(hash))?;
        paths.sort_unstable();
        Ok(paths)
    }

    /// What it says of a path; `None` where it has none.
    pub fn narinfo(&self, hash: StorePathHash) -> Result<Option<NarInfo>, OriginError> {
        let bank = match &self.kind {
            Kind::Directory(bank) => bank,
            Kind::Server(upstream) => return Ok(upstream.narinfo(hash, &self.store_dir)?),
        };
        let Some(text) = bank.read_narinfo(hash)? else { return Ok(None) };
        let narinfo = NarInfo::parse(&text, &self.store_dir)
            .map_err(|why| OriginError::NarInfo { hash, why })?;
        match narinfo.info.path.hash() == hash {
            true => Ok(Some(narinfo)),
            false => Err(OriginError::OtherPath { hash, path: narinfo.info.path }),
        }
    }

    /// The NAR that a narinfo of it names, as it lies there.
    pub fn nar(&self, narinfo: &NarInfo) -> Result<OriginNar, OriginError> {
        let missing = || OriginError::NoNar(narinfo.url.clone());
        match &self.kind {
            Kind::Server(upstream) => {
                let (compression, body) = upstream.nar(narinfo)?.ok_or_else(missing)?;
                Ok(OriginNar { body: Box::new(body), compression, size: narinfo.file_size })
            }
            Kind::Directory(bank) => {
                let compression = Compression::from_str(&narinfo.compression)?;
                let name = narinfo.nar_file().ok_or_else(missing)?;
                let (file, size): (File, u64) = bank.open_nar(name)?.ok_or_else(missing)?;
                Ok(OriginNar { body: Box::new(file), compression, size: Some(size) })
            }
        }
    }

    /// The hashes of these paths and of all that they refer to, each after what it refers to. What cannot be read, or
    /// is not there, is told to `wrong`; nothing of it is followed.
    pub fn references_first(
        &self,
        roots: &[StorePathHash],
        wrong: &mut dyn FnMut(StorePathHash, OriginError),
    ) -> Result<Vec<StorePathHash>, OriginError> {
        let (mut seen, mut order) = (HashSet::new(), Vec::new());
        // On a stack of our own: a chain of references may be long. A path is seen before what it refers to is, so a
        // circle ends.
        let mut stack: Vec<(StorePathHash, bool)> = Vec::new();
        for root in roots {
            stack.push((*root, false));
            while let Some((hash, references_are_done)) = stack.pop() {
                if references_are_done {
                    order.push(hash);
                    continue;
                }
                if !seen.insert(hash) {
                    continue;
                }
                if seen.len() > MAX_PATHS {
                    return Err(OriginError::TooMany);
                }
                match self.narinfo(hash) {
                    Ok(Some(narinfo)) => {
                        stack.push((hash, true));
                        let references = narinfo.info.references.iter().map(StorePath::hash);
                        stack.extend(references.filter(|one| *one != hash).map(|one| (one, false)));
                    }
                    Ok(None) => {
                        let (path, origin) = (hash.to_string(), self.name.clone());
                        wrong(hash, OriginError::NotThere { path, origin });
                    }
                    Err(error) => wrong(hash, error),
                }
            }
        }
        Ok(order)
    }
}

impl OriginNar {
    /// The NAR itself: at most `nar_size` bytes of it, more are an error.
    pub fn decoded(self, nar_size: u64) -> Result<impl Read, OriginError> {
        let limits = Limits { max_ratio: u32::MAX, ..Limits::output(nar_size) };
        let reader = BufReader::with_capacity(READ_BUFFER, self.body);
        Ok(Decoder::new(self.compression, reader, limits)?)
    }
}
