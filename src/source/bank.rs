//! A bank as a source: what it holds, checked before it is promised.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::behind::behind_requests;
use super::names::Names;
use super::quarantine::Quarantine;
use super::stored_file::StoredFile;
use super::vital::Vital;
use super::{Blob, Expected, Nar, NarBody, SourceError, Stored};
use crate::bank::{
    Bank, BankError, MAX_SMALL_OBJECT, Object, Stamp, is_read_error, narinfo_file_name,
};
use crate::codec::seekable;
use crate::codec::{CodecError, Compression, Decoder, Limits};
use crate::index::places::KnownPlaces;
use crate::index::presence::{Known, Presence};
use crate::metrics::SourceLabel;
use crate::nix::hash::Sha256;
use crate::nix::nar_url::{NarFileName, NarRequest};
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StoreDir, StorePathHash};

/// A cache's own directory, or one like it that others keep.
pub struct BankSource {
    bank: Arc<Bank>,
    store_dir: StoreDir,
    label: SourceLabel,
    /// Its name within its cache.
    name: String,
    /// For a part: where banks were seen before. Any other source has to be there.
    places: Option<Arc<KnownPlaces>>,
    pub(super) presence: Presence,
    last_look: Mutex<Option<Seen>>,
    names: RwLock<Names>,
    /// Whether every narinfo of the last scan has been read.
    all_read: AtomicBool,
    reported: Mutex<HashSet<StorePathHash>>,
    pub(super) vital: Arc<Vital>,
    quarantine: Arc<Quarantine>,
}

/// What was seen at a good look.
#[derive(Clone, Copy)]
enum Seen {
    /// The bank.
    There(Stamp),
    /// Nothing, where there never was anything.
    NotYet,
}

impl Seen {
    fn proves_unchanged_since(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::There(now), Self::There(before)) => now.proves_unchanged_since(before),
            (Self::NotYet, Self::NotYet) => true,
            _ => false,
        }
    }
}

/// Names looked up, or forgotten, in one go: a tenth of a millisecond's worth, for which a request may wait.
const LOOKED_UP_AT_ONCE: usize = 1000;
const FORGOTTEN_AT_ONCE: usize = 100;
/// Narinfos read in one go, so that a start with a million of them serves meanwhile.
const READ_AT_ONCE: usize = 10_000;

/// A NAR's file that Nix wrote, and how it is compressed.
pub struct Compressed {
    file: StoredFile,
    compression: Compression,
}

impl Compressed {
    /// Decodes from the beginning; at most `size` bytes come out, and an attempt at more is an
    /// error.
    pub fn into_reader(self, size: u64) -> Result<impl Read + Send, CodecError> {
        decoder(self.compression, self.file, size)
    }
}

/// A path that is here, and not whole.
pub struct Damage {
    /// What can be read of it: `None` where that is what is damaged.
    pub narinfo: Option<NarInfo>,
}

/// At most this many damaged paths are remembered as reported; beyond it, one is logged again.
const MAX_REPORTED: usize = 10_000;

impl BankSource {
    /// Takes a cache's own bank, which is open.
    pub fn new(bank: Arc<Bank>, store_dir: StoreDir) -> Self {
        Self::labelled(bank, store_dir, SourceLabel::Bank, None, Arc::default())
    }

    /// Takes a bank that another node keeps, and that is received here: part `number` of its cache. It is
    /// only read, and it may not have come yet.
    pub fn of_part(
        bank: Bank,
        store_dir: StoreDir,
        number: usize,
        places: Arc<KnownPlaces>,
    ) -> Self {
        let name = format!("{}-{number}", SourceLabel::Part.label());
        let (bank, vital) = (Arc::new(bank), Arc::default());
        let part = Self::labelled(bank, store_dir, SourceLabel::Part, Some(places), vital);
        Self { name, ..part }
    }

    /// Takes this bank as it was at a snapshot, which stands as the bank does.
    pub(super) fn of_view(&self, bank: Bank, store_dir: StoreDir) -> Self {
        let (bank, vital) = (Arc::new(bank), Arc::clone(&self.vital));
        Self::labelled(bank, store_dir, SourceLabel::View, None, vital)
    }

    fn labelled(
        bank: Arc<Bank>,
        store_dir: StoreDir,
        label: SourceLabel,
        places: Option<Arc<KnownPlaces>>,
        vital: Arc<Vital>,
    ) -> Self {
        Self {
            quarantine: Arc::new(Quarantine::new(Arc::clone(&bank), Arc::clone(&vital))),
            vital,
            bank,
            store_dir,
            label,
            name: label.label().into(),
            places,
            presence: Presence::default(),
            last_look: Mutex::default(),
            names: RwLock::default(),
            all_read: AtomicBool::new(false),
            reported: Mutex::default(),
        }
    }

    /// The bank.
    pub fn bank(&self) -> &Arc<Bank> {
        &self.bank
    }

    /// The store directory of its paths.
    pub const fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// The label that metrics and logs use.
    pub const fn label(&self) -> SourceLabel {
        self.label
    }

    /// Its name within its cache.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of its files cannot be read.
    pub fn quarantine(&self) -> &Arc<Quarantine> {
        &self.quarantine
    }

    /// The paths whose narinfo or NAR was found damaged, as far as it is known which path a NAR is of.
    pub fn damaged_paths(&self) -> HashSet<StorePathHash> {
        let mut paths = lock(&self.reported).clone();
        let names = self.names();
        paths.extend(self.quarantine.names().iter().filter_map(|name| {
            match name.strip_prefix("nar/") {
                Some(nar) => names.path_of(NarFileName::parse(nar)?.hash),
                None => StorePathHash::parse(name.strip_suffix(".narinfo")?),
            }
        }));
        paths
    }

    /// What is wrong with a path; `None` where it is whole, or not there. Blocks.
    pub fn damage(&self, hash: StorePathHash) -> Result<Option<Damage>, SourceError> {
        let narinfo = match self.read_narinfo(hash) {
            Ok(Some((narinfo, _))) => Some(narinfo),
            Ok(None) => {
                lock(&self.reported).remove(&hash);
                return Ok(None);
            }
            Err(SourceError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        match self.find(hash) {
            Ok(_) => Ok(None),
            Err(SourceError::Damaged(_)) => Ok(Some(Damage { narinfo })),
            Err(error) => Err(error),
        }
    }

    /// Whether it was there at the last good look.
    pub(super) fn is_there(&self) -> bool {
        !matches!(*lock(&self.last_look), Some(Seen::NotYet))
    }

    pub(super) fn look(&self) -> Result<(), SourceError> {
        let before = *lock(&self.last_look);
        let seen = match self.bank.stamp() {
            Ok(stamp) => {
                let known = matches!(before, Some(Seen::There(before)) if stamp.is_of_the_directory_of(&before));
                if !known {
                    self.arrived()?;
                }
                Seen::There(stamp)
            }
            Err(BankError::Away(_)) if self.may_not_have_come() => Seen::NotYet,
            Err(error) => return Err(unavailable(error)),
        };
        let mut last = lock(&self.last_look);
        if !last.is_some_and(|last| seen.proves_unchanged_since(&last)) {
            self.presence.truth_changed();
        }
        *last = Some(seen);
        Ok(())
    }

    /// Notes that a bank is there that was not, or was another one.
    fn arrived(&self) -> Result<(), SourceError> {
        let Some(places) = &self.places else { return Ok(()) };
        self.bank.check_store_dir(&self.store_dir).map_err(unavailable)?;
        places.saw(self.bank.root());
        Ok(())
    }

    /// Whether it is no error that nothing is there.
    fn may_not_have_come(&self) -> bool {
        self.places.as_ref().is_some_and(|places| !places.was_there(self.bank.root()))
    }

    pub(super) fn scan_if_due(&self) -> Result<(), SourceError> {
        let Some(scan) = self.presence.begin_scan() else { return Ok(()) };
        self.names_to_change().scan_begins();
        let read = || {
            let mut paths = Vec::new();
            if self.is_there() {
                self.bank.scan(|hash| paths.push(hash)).map_err(unavailable)?;
            }
            Ok(Known { paths: paths.into(), ..Known::default() })
        };
        // Before the first one there is nobody to serve.
        let known = if self.presence.was_scanned() { behind_requests(read) } else { read() }?;
        scan.finish(known);
        self.all_read.store(false, Ordering::Release);
        Ok(())
    }

    /// Learns what a narinfo says that has just come. What is wrong with it is told to whoever asks for it.
    pub(super) fn read_new(&self, hash: StorePathHash) {
        let _ = self.read_narinfo(hash);
    }

    /// Whether [`Self::read_some`] has something to read.
    pub(super) fn has_unread(&self) -> bool {
        !self.all_read.load(Ordering::Acquire)
    }

    /// Reads some of the narinfos that came since the last call, to know which path a NAR is of.
    /// Says whether there are more.
    pub(super) fn read_some(&self) -> bool {
        if self.all_read.load(Ordering::Acquire) {
            return false;
        }
        let known = self.presence.known();
        let mut unread = Vec::new();
        for paths in known.paths.as_slice().chunks(LOOKED_UP_AT_ONCE) {
            unread.extend(self.names().unread(paths));
            if unread.len() > READ_AT_ONCE {
                break;
            }
        }
        let more = unread.len() > READ_AT_ONCE;
        unread.truncate(READ_AT_ONCE);
        // What is damaged is reported when it is read, and the others are read all the same.
        unread.retain(|hash| !matches!(self.read_narinfo(*hash), Ok(Some(_))));
        self.names_to_change().were_unreadable(unread);
        if !more && self.names().len() > known.paths.len() {
            let mut before = None;
            loop {
                before =
                    self.names_to_change().forget_gone(&known.paths, before, FORGOTTEN_AT_ONCE);
                if before.is_none() {
                    break;
                }
            }
        }
        self.all_read.store(!more, Ordering::Release);
        more
    }

    /// Reads every narinfo that has not been read.
    fn read_all(&self) -> Result<(), SourceError> {
        if !self.presence.was_scanned() {
            self.scan_if_due()?;
        }
        if !self.presence.was_scanned() {
            return Err(SourceError::Unavailable("its names are still being read".into()));
        }
        while self.read_some() {}
        Ok(())
    }

    pub(super) fn find(&self, hash: StorePathHash) -> Result<Option<NarInfo>, SourceError> {
        let Some((narinfo, name)) = self.read_narinfo(hash)? else { return Ok(None) };
        // What is promised must be there, whole as far as its size tells.
        match self.open_nar(&narinfo, name)? {
            Some(_) => {
                lock(&self.reported).remove(&hash);
                Ok(Some(narinfo))
            }
            None => Err(self.damaged(
                hash,
                format!("{hash}.narinfo names {}, which is not there", narinfo.url),
            )),
        }
    }

    pub(super) fn nar(&self, request: NarRequest) -> Result<Option<Nar>, SourceError> {
        match request {
            NarRequest::File { name, path } => {
                if let Some(found) = self.file(name)? {
                    return Ok(Some(found));
                }
                if !name.is_bare() {
                    return Ok(None);
                }
                let mut found = path.or_else(|| self.path_of(name.hash));
                if found.is_none() {
                    // Shortly after the start not all is known yet, and a 404 must be certain.
                    self.read_all()?;
                    found = self.path_of(name.hash);
                }
                found.map_or(Ok(None), |path| self.content(path, Some(name.hash)))
            }
            NarRequest::OfPath { path, nar_hash } => self.content(path, nar_hash),
        }
    }

    pub(super) fn object(&self, object: &Object) -> Result<Option<Blob>, SourceError> {
        let found = self.bank.open_object(object).map_err(|error| self.refuse(error))?;
        let Some((name, file)) = found else { return Ok(None) };
        let file = self.watched(&name, file)?;
        // Nix may store these compressed without saying so in the name: the magic tells.
        let mut magic = [0; 6];
        let mut start = file.try_clone().map_err(failed)?;
        let count = start.read(&mut magic).map_err(|error| self.refuse_read(&name, &error))?;
        let compression = Compression::from_magic(&magic[..count]);
        let reader = decoder(compression, file, MAX_OBJECT)
            .map_err(|error| SourceError::Damaged(error.to_string()))?;
        Ok(Some(Blob::Stream(Box::new(reader))))
    }

    /// The narinfo of a path and the file that it names; a narinfo that cannot be used is logged
    /// once and answered as damaged.
    fn read_narinfo(
        &self,
        hash: StorePathHash,
    ) -> Result<Option<(NarInfo, NarFileName)>, SourceError> {
        if let Some(held) = self.quarantine.holds(&narinfo_file_name(hash)) {
            return Err(held);
        }
        let text = self.bank.read_narinfo(hash).map_err(|error| self.refuse(error))?;
        let Some(text) = text else { return Ok(None) };
        let narinfo = NarInfo::parse(&text, &self.store_dir)
            .map_err(|error| self.damaged(hash, format!("{hash}.narinfo: {error}")))?;
        if narinfo.info.path.hash() != hash {
            let theirs = &narinfo.info.path;
            return Err(self.damaged(hash, format!("{hash}.narinfo is of another path, {theirs}")));
        }
        let name = narinfo.nar_file().ok_or_else(|| {
            self.damaged(hash, format!("{hash}.narinfo: URL {:?} is no NAR of a bank", narinfo.url))
        })?;
        let known = self.presence.known();
        self.names_to_change().learn(&narinfo, name, &known.paths);
        Ok(Some((narinfo, name)))
    }

    /// A NAR's file as it lies.
    fn file(&self, name: NarFileName) -> Result<Option<Nar>, SourceError> {
        let found = self.bank.open_nar(name).map_err(|error| self.refuse(error))?;
        let Some((file, size)) = found else { return Ok(None) };
        let (path, promised) = {
            let names = self.names();
            (names.path_of(name.hash), names.promised(name))
        };
        // What memory finds wrong is asked again: the narinfo may be another by now.
        if let Some(path) = path
            && (size == 0 || promised.is_some_and(|promised| promised != size))
            && let Some((narinfo, named)) = self.read_narinfo(path)?
            && named == name
        {
            self.check_size(path, &narinfo, size)?;
        }
        let tag = tag_of_file(name, &file);
        let file = self.readable(name, file)?;
        Ok(Some(Nar { body: NarBody::Stored(Stored::File(file)), size: Some(size), tag }))
    }

    /// The uncompressed NAR of a path.
    fn content(
        &self,
        path: StorePathHash,
        nar_hash: Option<Sha256>,
    ) -> Result<Option<Nar>, SourceError> {
        let Some((narinfo, name)) = self.read_narinfo(path)? else { return Ok(None) };
        let info = &narinfo.info;
        if nar_hash.is_some_and(|asked| asked != info.nar_hash) {
            return Ok(None);
        }
        let Some((file, size)) = self.open_nar(&narinfo, name)? else { return Ok(None) };
        let tag = info.nar_hash.to_nix32();
        let size_known = Some(info.nar_size);
        let file = self.readable(name, file)?;
        let body = if name.is_bare() {
            NarBody::Stored(Stored::File(file))
        } else {
            self.compressed(&narinfo, name, file, size)?
        };
        Ok(Some(Nar { body, size: size_known, tag }))
    }

    fn compressed(
        &self,
        narinfo: &NarInfo,
        name: NarFileName,
        file: StoredFile,
        size: u64,
    ) -> Result<NarBody, SourceError> {
        let (expected, hash) = (Expected::from(&narinfo.info), narinfo.info.path.hash());
        let compression = Compression::from_str(&narinfo.compression)
            .map_err(|error| self.damaged(hash, format!("{hash}.narinfo: {error}")))?;
        if compression == Compression::Zstd
            && let Ok(clone) = file.try_clone()
            && let Ok(reader) = seekable::Reader::open(clone, size)
            && reader.size() == expected.nar_size
        {
            return Ok(NarBody::Stored(Stored::Seekable(Box::new(reader), expected)));
        }
        // Its table may be what cannot be read.
        if let Some(held) = self.quarantine.holds(&name.url()) {
            return Err(held);
        }
        Ok(NarBody::Stored(Stored::Decoded(Box::new(Compressed { file, compression }), expected)))
    }

    fn open_nar(
        &self,
        narinfo: &NarInfo,
        name: NarFileName,
    ) -> Result<Option<(File, u64)>, SourceError> {
        let found = self.bank.open_nar(name).map_err(|error| self.refuse(error))?;
        let Some((file, size)) = found else { return Ok(None) };
        if let Some(held) = self.quarantine.holds(&name.url()) {
            return Err(held);
        }
        self.check_size(narinfo.info.path.hash(), narinfo, size)?;
        Ok(Some((file, size)))
    }

    fn check_size(
        &self,
        hash: StorePathHash,
        narinfo: &NarInfo,
        size: u64,
    ) -> Result<(), SourceError> {
        match narinfo.file_size {
            Some(promised) if promised != size => Err(self.damaged(
                hash,
                format!("{} has {size} bytes, {hash}.narinfo promises {promised}", narinfo.url),
            )),
            _ if size == 0 => Err(self.damaged(hash, format!("{} is empty", narinfo.url))),
            _ => Ok(()),
        }
    }

    pub(super) fn nar_bytes(&self) -> u64 {
        self.names().bytes()
    }

    pub(super) fn path_of(&self, nar: Sha256) -> Option<StorePathHash> {
        self.names().path_of(nar)
    }

    fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn names_to_change(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A NAR's file that is not in quarantine, and of which the beginning can be read.
    fn readable(&self, name: NarFileName, file: File) -> Result<StoredFile, SourceError> {
        let url = name.url();
        let file = self.watched(&url, file)?;
        file.probe().map_err(|error| self.refuse_read(&url, &error))?;
        Ok(file)
    }

    /// A file whose read errors are looked into, whoever meets them.
    fn watched(&self, name: &str, file: File) -> Result<StoredFile, SourceError> {
        if let Some(held) = self.quarantine.holds(name) {
            return Err(held);
        }
        let (quarantine, name) = (Arc::clone(&self.quarantine), name.to_owned());
        let tell = move |part, error: &io::Error| drop(quarantine.failed(&name, part, error));
        Ok(StoredFile::watched(file, Arc::new(tell)))
    }

    /// What it means that a watched file could not be read.
    fn refuse_read(&self, name: &str, error: &io::Error) -> SourceError {
        self.quarantine.holds(name).unwrap_or_else(|| {
            SourceError::Unavailable(format!("{}: {error}", self.bank.root().join(name).display()))
        })
    }

    fn damaged(&self, hash: StorePathHash, why: String) -> SourceError {
        let mut reported = lock(&self.reported);
        if reported.len() >= MAX_REPORTED {
            reported.clear();
        }
        if reported.insert(hash) {
            tracing::warn!(path = %hash, "damaged in the bank, answered as not there: {why}");
        }
        SourceError::Damaged(why)
    }

    fn refuse(&self, error: BankError) -> SourceError {
        match error {
            BankError::Damaged { .. } => {
                tracing::warn!("damaged in the bank, answered as not there: {error}");
                SourceError::Damaged(error.to_string())
            }
            BankError::Io { path, source } if is_read_error(&source) => {
                match path.strip_prefix(self.bank.root()).ok().and_then(Path::to_str) {
                    Some(name) => self.quarantine.failed(name, 0..MAX_SMALL_OBJECT, &source),
                    None => unavailable(BankError::Io { path, source }),
                }
            }
            _ => unavailable(error),
        }
    }
}

/// Decodes what lies in our own directory, where NarSize bounds the output and the ratio may be
/// anything: a file of zeros is 30,000 times smaller.
fn decoder(
    compression: Compression,
    file: StoredFile,
    max_output: u64,
) -> Result<Decoder<BufReader<StoredFile>>, CodecError> {
    let limits = Limits { max_ratio: u32::MAX, ..Limits::output(max_output) };
    Decoder::new(compression, BufReader::with_capacity(READ_BUFFER, file), limits)
}

/// How much of a compressed file is read at once.
const READ_BUFFER: usize = 256 * 1024;

/// The largest log or other object that is decoded for a client.
const MAX_OBJECT: u64 = 4 << 30;

pub(super) fn unavailable(error: BankError) -> SourceError {
    SourceError::Unavailable(error.to_string())
}

fn failed(error: io::Error) -> SourceError {
    SourceError::Unavailable(error.to_string())
}

/// A NAR named by its FileHash or by our own encoding keeps its bytes; the file's size and times
/// guard against one that was put in its place by hand.
fn tag_of_file(name: NarFileName, file: &File) -> String {
    let stem = name.file_name();
    file.metadata().map_or_else(
        |_| stem.clone(),
        |metadata| format!("{stem}-{:x}-{:x}", metadata.len(), metadata.mtime()),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
