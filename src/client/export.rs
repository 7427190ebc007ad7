//! An export: paths with all that they refer to, taken out of a binary cache, as a stream for `nix-store --import`, as
//! a file, or as a cache of their own.
//!
//! Each NAR is held against its NarHash and size while it is written. Where it is another the export ends there, without
//! the words that would end it well, so that nothing takes it for whole.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;

use super::origin::{Origin, OriginError, OriginNar};
use crate::bank::publish::partial::Partial;
use crate::bank::publish::{self, Staged};
use crate::bank::{Bank, BankError, narinfo_file_name};
use crate::nix::cache_info::{self, CacheInfo};
use crate::nix::export::{END, ONE_MORE, trailer};
use crate::nix::hash::{Hasher, Sha256};
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StoreDir, StorePathHash};

/// How much is copied at once, in bytes.
const BUFFER: usize = 256 << 10;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportSummary {
    /// How many paths were written.
    pub written: usize,
    /// How many were there already.
    pub present: usize,
    /// Bytes of the NARs that were written, uncompressed.
    pub nar_bytes: u64,
}

/// Why it is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The cache cannot be read, or lacks something.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A NAR is not the one that its narinfo is of.
    #[error("{path}: its NAR is not the one that its narinfo is of: {why}")]
    Wrong {
        /// The path.
        path: String,
        /// What differs.
        why: String,
    },
    /// A NAR could not be read to its end.
    #[error("{path}: {source}")]
    Read {
        /// The path.
        path: String,
        /// What the decoder or the network said.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    /// It could not be written.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// The directory is a cache of another store.
    #[error("the cache in {0} is of the store directory {1}, and what is exported is of {2}")]
    StoreDir(String, StoreDir, StoreDir),
}

/// What is exported.
pub struct Export<'a> {
    /// Where from.
    pub origin: &'a Origin,
    /// Hears of each path that is written.
    pub each: &'a dyn Fn(&NarInfo),
}

impl Export<'_> {
    /// The paths that are exported for `roots`, each after what it refers to; with `whole`, all that they refer to.
    /// It is the same order each time.
    pub fn paths(
        &self,
        roots: &[StorePathHash],
        whole: bool,
    ) -> Result<Vec<StorePathHash>, ExportError> {
        if !whole {
            return Ok(roots.to_vec());
        }
        let mut failure = None;
        let mut wrong = |_, error| {
            failure.get_or_insert(error);
        };
        let order = self.origin.references_first(roots, &mut wrong)?;
        failure.map_or(Ok(order), |error| Err(error.into()))
    }

    /// Writes all of them to `out`.
    pub fn stream(
        &self,
        paths: &[StorePathHash],
        out: &mut dyn Write,
    ) -> Result<ExportSummary, ExportError> {
        let mut summary = ExportSummary::default();
        for hash in paths {
            self.entry(*hash, out, &mut summary)?;
        }
        out.write_all(&END).and_then(|()| out.flush()).map_err(ExportError::Write)?;
        Ok(summary)
    }

    /// Writes all of them to a file, and keeps of what an earlier run left the paths that are whole.
    pub fn file(&self, paths: &[StorePathHash], name: &Path) -> Result<ExportSummary, ExportError> {
        let partial = Partial::open(name)?;
        let (mut file, mut summary) = (partial.file(), ExportSummary::default());
        let (mut good, mut left) = (0, paths);
        while let Some((first, rest)) = left.split_first() {
            let narinfo = self.narinfo(*first)?;
            let Some(size) = self.is_there(file, good, &narinfo).map_err(ExportError::Write)?
            else {
                break;
            };
            (good, left) = (good + size, rest);
            summary.present += 1;
        }
        file.set_len(good).map_err(ExportError::Write)?;
        file.seek(SeekFrom::Start(good)).map_err(ExportError::Write)?;
        let written = self.stream(left, &mut file)?;
        partial.finish()?;
        Ok(ExportSummary { present: summary.present, ..written })
    }

    /// How many bytes the entry of a path takes that begins at `offset`; nothing where it is not there, or not whole.
    fn is_there(&self, file: &File, offset: u64, narinfo: &NarInfo) -> io::Result<Option<u64>> {
        let trailer = trailer(&narinfo.info, self.origin.store_dir());
        let size = 8 + narinfo.info.nar_size + trailer.len() as u64;
        if file.metadata()?.len() < offset + size {
            return Ok(None);
        }
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        let mut entry = BufReader::with_capacity(BUFFER, file.take(size));
        let mut word = [0; 8];
        entry.read_exact(&mut word)?;
        let mut nar = (&mut entry).take(narinfo.info.nar_size);
        let hash = copy(&mut nar, &mut io::sink()).map_err(|error| match error {
            Copied::Read(error) | Copied::Write(error) => error,
        })?;
        let mut rest = Vec::new();
        entry.read_to_end(&mut rest)?;
        let is_whole = word == ONE_MORE && hash.0 == narinfo.info.nar_hash && rest == trailer;
        Ok(is_whole.then_some(size))
    }

    fn entry(
        &self,
        hash: StorePathHash,
        out: &mut dyn Write,
        summary: &mut ExportSummary,
    ) -> Result<(), ExportError> {
        let narinfo = self.narinfo(hash)?;
        let info = &narinfo.info;
        out.write_all(&ONE_MORE).map_err(ExportError::Write)?;
        let mut nar = self.origin.nar(&narinfo)?.decoded(info.nar_size)?;
        let (nar_hash, nar_size) = copied(&narinfo, copy(&mut nar, out))?;
        if (nar_hash, nar_size) != (info.nar_hash, info.nar_size) {
            let why = format!(
                "NarHash {nar_hash} and {nar_size} bytes, and not {} and {}",
                info.nar_hash, info.nar_size
            );
            return Err(ExportError::Wrong { path: info.path.to_string(), why });
        }
        out.write_all(&trailer(info, self.origin.store_dir())).map_err(ExportError::Write)?;
        summary.written += 1;
        summary.nar_bytes += nar_size;
        (self.each)(&narinfo);
        Ok(())
    }

    /// Copies all of them into a binary cache of their own, as they lie, but for those that are in it.
    pub fn cache(
        &self,
        paths: &[StorePathHash],
        directory: &Path,
    ) -> Result<ExportSummary, ExportError> {
        let store_dir = self.origin.store_dir();
        publish::make_directories(directory)?;
        publish::sweep_abandoned(directory)?;
        let info = CacheInfo { store_dir: store_dir.clone(), want_mass_query: true, priority: 40 };
        match Bank::store_dir_at(directory) {
            Some(theirs) if theirs != *store_dir => {
                let name = directory.display().to_string();
                return Err(ExportError::StoreDir(name, theirs, store_dir.clone()));
            }
            Some(_) => {}
            None => {
                let staged = Staged::create(directory)?;
                staged.write(info.to_text().as_bytes())?;
                staged.publish(&directory.join(cache_info::NAME))?;
            }
        }
        let bank = Bank::of_others(directory.to_owned(), info);
        let mut summary = ExportSummary::default();
        for hash in paths {
            let narinfo = self.narinfo(*hash)?;
            if is_in(&bank, store_dir, *hash, &narinfo)? {
                summary.present += 1;
                continue;
            }
            self.copy_into(directory, narinfo, &mut summary)?;
        }
        Ok(summary)
    }

    fn copy_into(
        &self,
        directory: &Path,
        mut narinfo: NarInfo,
        summary: &mut ExportSummary,
    ) -> Result<(), ExportError> {
        // Stored as it lies, and then read again, to be held against its NarHash.
        let nar = self.origin.nar(&narinfo)?;
        let extension = nar.compression.extension();
        let staged = Staged::create(directory)?;
        let mut body = nar.body;
        let mut out = staged.file();
        let (file_hash, file_size) = copied(&narinfo, copy(&mut body, &mut out))?;
        let mut again = staged.file().try_clone().map_err(ExportError::Write)?;
        again.seek(SeekFrom::Start(0)).map_err(ExportError::Write)?;
        let stored = OriginNar {
            body: Box::new(again),
            compression: nar.compression,
            size: Some(file_size),
        };
        let mut decoded = stored.decoded(narinfo.info.nar_size)?;
        let found = copied(&narinfo, copy(&mut decoded, &mut io::sink()))?;
        if found != (narinfo.info.nar_hash, narinfo.info.nar_size) {
            let why = format!("NarHash {} and {} bytes", found.0, found.1);
            return Err(ExportError::Wrong { path: narinfo.info.path.to_string(), why });
        }
        let name = format!("{}.nar{extension}", file_hash.to_nix32());
        let Some(name) = NarFileName::parse(&name) else {
            let why = format!("it is compressed as {}", nar.compression.name());
            return Err(ExportError::Wrong { path: narinfo.info.path.to_string(), why });
        };
        staged.publish(&directory.join(name.url()))?;
        narinfo.url = name.url();
        narinfo.compression = nar.compression.name().into();
        (narinfo.file_hash, narinfo.file_size) = (Some(file_hash), Some(file_size));
        let text = Staged::create(directory)?;
        text.write(narinfo.to_text(self.origin.store_dir()).as_bytes())?;
        text.publish_over(&directory.join(narinfo_file_name(narinfo.info.path.hash())))?;
        summary.written += 1;
        summary.nar_bytes += narinfo.info.nar_size;
        (self.each)(&narinfo);
        Ok(())
    }

    fn narinfo(&self, hash: StorePathHash) -> Result<NarInfo, ExportError> {
        self.origin.narinfo(hash)?.ok_or_else(|| {
            let (path, origin) = (hash.to_string(), self.origin.name().to_owned());
            OriginError::NotThere { path, origin }.into()
        })
    }
}

/// Whether a cache has the path, with a NAR of the right size.
fn is_in(
    bank: &Bank,
    store_dir: &StoreDir,
    hash: StorePathHash,
    narinfo: &NarInfo,
) -> Result<bool, ExportError> {
    let Some(text) = bank.read_narinfo(hash)? else { return Ok(false) };
    let Ok(there) = NarInfo::parse(&text, store_dir) else { return Ok(false) };
    let Some(name) = there.nar_file() else { return Ok(false) };
    let size = bank.open_nar(name)?.map(|(_, size)| size);
    Ok(there.info.nar_hash == narinfo.info.nar_hash && size.is_some() && size == there.file_size)
}

/// On which side a copy ended.
enum Copied {
    Read(io::Error),
    Write(io::Error),
}

/// Copies all there is, and says what it hashes to and how much it is.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(Sha256, u64), Copied> {
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                to.write_all(&buffer[..count]).map_err(Copied::Write)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Copied::Read(error)),
        }
    }
}

fn copied(
    narinfo: &NarInfo,
    copied: Result<(Sha256, u64), Copied>,
) -> Result<(Sha256, u64), ExportError> {
    copied.map_err(|error| match error {
        Copied::Read(source) => ExportError::Read { path: narinfo.info.path.to_string(), source },
        Copied::Write(error) => ExportError::Write(error),
    })
}
