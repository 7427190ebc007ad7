//! What has come and cannot be seen yet: NARs without a narinfo, and uploads of which parts came.
//!
//! ```text
//! pending/<hash>.nar[.zst|…]          the NAR as it will be stored, by the name it came under
//! pending/<hash>.nar[.zst|…].facts    what was computed of it; the caller's format
//! pending/<hash>.nar[.zst|…].ls       its listing, if it has one
//! uploads/<id>.part                   the bytes so far
//! uploads/<id>.state                  how many of them are good; the caller's format
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{PENDING, Staged, UPLOADS, entries, io_error, remove, sync_directory, system};
use crate::bank::{Bank, BankError};
use crate::nix::nar_url::NarFileName;

/// Whether a name is durable when the call is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// It is.
    Now,
    /// With the next commit of several paths.
    WithCommit,
}

/// Whether a file in `pending/` or `uploads/` is none of a NAR's own bytes.
pub(in crate::bank) fn is_beside_a_nar(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("facts" | "ls" | "journal" | "state"))
}

/// What waits in `pending/` or `uploads/`, with its files.
#[derive(Debug)]
pub struct Waiting {
    /// What it is.
    pub of: WaitingOf,
    files: Vec<PathBuf>,
}

/// What it is that waits.
#[derive(Debug)]
pub enum WaitingOf {
    /// A NAR.
    Nar(NarFileName),
    /// An upload of which parts came.
    Upload(UploadId),
}

impl Waiting {
    /// Whether none of its files is younger; those that are gone are as old as can be.
    fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        self.files.iter().all(|path| match std::fs::symlink_metadata(path) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(found) => {
                let waited = found.modified().ok().and_then(|at| now.duration_since(at).ok());
                waited.is_some_and(|waited| waited > age)
            }
        })
    }
}

/// The name of an upload: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UploadId(String);

impl UploadId {
    /// Names an upload by 16 random bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&bytes))
    }

    /// Reads exactly 32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(digit)).then(|| Self(text.into()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Bank {
    /// Keeps a NAR until its narinfo comes, in the place of one that is there already.
    pub fn add_pending(
        &self,
        name: NarFileName,
        nar: &Staged,
        facts: &[u8],
        listing: Option<&[u8]>,
        durability: Durability,
    ) -> Result<(), BankError> {
        let now = durability == Durability::Now;
        if now {
            nar.sync()?;
        }
        // All of it is written before anything has its name: a full disk refuses here, and leaves nothing.
        let facts = self.stage_part(facts, now)?;
        let listing = listing.map(|listing| self.stage_part(listing, now)).transpose()?;
        self.name_pending(name, nar, &facts, listing.as_ref())
            .inspect_err(|_| self.forget_pending(name))?;
        if now {
            sync_directory(&self.root().join(PENDING))?;
        }
        Ok(())
    }

    fn stage_part(&self, bytes: &[u8], now: bool) -> Result<Staged, BankError> {
        let staged = Staged::create(self.root())?;
        staged.write(bytes)?;
        if now {
            staged.sync()?;
        }
        Ok(staged)
    }

    fn name_pending(
        &self,
        name: NarFileName,
        nar: &Staged,
        facts: &Staged,
        listing: Option<&Staged>,
    ) -> Result<(), BankError> {
        facts.rename_over(&self.pending_part(name, "facts"))?;
        if let Some(listing) = listing {
            listing.rename_over(&self.pending_part(name, "ls"))?;
        }
        // Facts and listing belong to these bytes: an earlier file may be compressed otherwise, or
        // have lost its content when the power went.
        nar.rename_over(&self.pending_nar(name))
    }

    /// Leaves neither facts without their NAR, nor an earlier NAR with the facts of another. What is wrong
    /// with the disk was told already, and the next start removes what stays.
    fn forget_pending(&self, name: NarFileName) {
        for path in [
            self.pending_nar(name),
            self.pending_part(name, "ls"),
            self.pending_part(name, "facts"),
        ] {
            let _ = remove(&path);
        }
    }

    /// Makes a NAR that waits durable, with all that belongs to it.
    pub fn sync_pending(&self, name: NarFileName) -> Result<(), BankError> {
        let parts = ["facts", "ls"].map(|ending| self.pending_part(name, ending));
        for path in [&self.pending_nar(name)].into_iter().chain(&parts) {
            match system::open(path) {
                Ok(file) => system::sync(&file, path).map_err(io_error(path))?,
                // Not every NAR has a listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(path)(error)),
            }
        }
        sync_directory(&self.root().join(PENDING))
    }

    /// What was computed of a NAR that waits; `None` where none of this name does.
    pub fn pending_facts(&self, name: NarFileName) -> Result<Option<Vec<u8>>, BankError> {
        match self.open_pending(name)? {
            Some(_) => self.read_small(&self.pending_part(name, "facts")),
            None => Ok(None),
        }
    }

    /// The listing of a NAR that waits, if it has one.
    pub fn pending_listing(&self, name: NarFileName) -> Result<Option<Vec<u8>>, BankError> {
        self.read_small(&self.pending_part(name, "ls"))
    }

    /// A NAR that waits, with its size in bytes.
    pub fn open_pending(&self, name: NarFileName) -> Result<Option<(File, u64)>, BankError> {
        self.open_regular(&self.pending_nar(name))
    }

    /// Lets go of a NAR that waits.
    pub fn remove_pending(&self, name: NarFileName) -> Result<(), BankError> {
        remove(&self.pending_nar(name))?;
        remove(&self.pending_part(name, "ls"))?;
        remove(&self.pending_part(name, "facts"))
    }

    /// After a commit that failed: lets go of what was computed of a NAR that has its place already and has
    /// no narinfo. A commit that is decided still needs it.
    pub fn forget_placed(&self, name: NarFileName) -> Result<(), BankError> {
        if self.is_undecided() && self.open_pending(name)?.is_none() {
            self.remove_pending(name)?;
        }
        Ok(())
    }

    /// What has waited for longer than `age`: NARs and uploads, each by the youngest of its files.
    ///
    /// A clock that was set back makes nothing old; what is from the future waits on.
    pub fn waiting_for_longer(
        &self,
        age: Duration,
        now: SystemTime,
    ) -> Result<Vec<Waiting>, BankError> {
        let mut found: BTreeMap<PathBuf, Waiting> = BTreeMap::new();
        for directory in [PENDING, UPLOADS] {
            for path in entries(&self.root().join(directory))? {
                let ending = path.extension().and_then(|ending| ending.to_str());
                let whole = match ending {
                    // It is committed, whoever waits for whatever.
                    Some("journal") => continue,
                    Some("facts" | "ls" | "part" | "state") => path.with_extension(""),
                    _ => path.clone(),
                };
                let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let of = match (NarFileName::parse(name), UploadId::parse(name)) {
                    (Some(name), _) => WaitingOf::Nar(name),
                    (None, Some(id)) => WaitingOf::Upload(id),
                    (None, None) => continue,
                };
                let waiting = Waiting { of, files: Vec::new() };
                found.entry(whole).or_insert(waiting).files.push(path);
            }
        }
        found.retain(|_, waiting| waiting.is_older_than(age, now));
        Ok(found.into_values().collect())
    }

    /// Lets go of it, if it has still waited for longer than `age`. Says how many files went.
    pub fn remove_waiting(
        &self,
        waiting: &Waiting,
        age: Duration,
        now: SystemTime,
    ) -> Result<u64, BankError> {
        if !waiting.is_older_than(age, now) {
            return Ok(0);
        }
        waiting.files.iter().try_for_each(|path| remove(path))?;
        Ok(waiting.files.len() as u64)
    }

    /// Removes, at a start, what is of no use without what a crash took from it.
    pub(super) fn remove_orphans(&self) -> Result<u64, BankError> {
        let mut removed = 0;
        for path in entries(&self.root().join(PENDING))? {
            let partner = match path.extension().and_then(|ending| ending.to_str()) {
                Some("facts" | "ls") => path.with_extension(""),
                Some("journal") => continue,
                _ => append(&path, "facts"),
            };
            if !partner.exists() {
                remove(&path)?;
                removed += 1;
            }
        }
        for path in entries(&self.root().join(UPLOADS))? {
            let other = if path.extension().is_some_and(|ending| ending == "part") {
                "state"
            } else {
                "part"
            };
            if !path.with_extension(other).exists() {
                remove(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Begins an upload of which nothing has come.
    pub fn create_upload(&self, id: &UploadId, state: &[u8]) -> Result<(), BankError> {
        let path = self.upload_file(id, "part");
        drop(system::create(&path).map_err(io_error(&path))?);
        let begun = self.write_upload_state(id, state);
        if begun.is_err() {
            // The state may have its name though its directory was not synced. What is wrong with
            // the disk was told already.
            let _ = self.remove_upload(id);
        }
        begun
    }

    /// The bytes of an upload, to be written to behind those that are good, or read.
    pub fn open_upload(&self, id: &UploadId) -> Result<File, BankError> {
        let path = self.upload_file(id, "part");
        system::open(&path).map_err(io_error(&path))
    }

    /// Makes the bytes of an upload durable, and then says so in its state.
    pub fn advance_upload(
        &self,
        id: &UploadId,
        file: &File,
        state: &[u8],
    ) -> Result<(), BankError> {
        let path = self.upload_file(id, "part");
        system::sync(file, &path).map_err(io_error(&path))?;
        self.write_upload_state(id, state)
    }

    fn write_upload_state(&self, id: &UploadId, state: &[u8]) -> Result<(), BankError> {
        let staged = Staged::create(self.root())?;
        staged.write(state)?;
        staged.publish_over(&self.upload_file(id, "state"))
    }

    /// The state of an upload; `None` where there is none of this name.
    pub fn upload_state(&self, id: &UploadId) -> Result<Option<Vec<u8>>, BankError> {
        // One whose bytes are gone was finished or ended, and only its state could not be removed.
        match self.open_regular(&self.upload_file(id, "part"))? {
            Some(_) => self.read_small(&self.upload_file(id, "state")),
            None => Ok(None),
        }
    }

    /// Every upload that is under way.
    pub fn uploads(&self) -> Result<Vec<UploadId>, BankError> {
        let states = entries(&self.root().join(UPLOADS))?;
        let ids = states.iter().filter_map(|path| {
            let is_state = path.extension().is_some_and(|ending| ending == "state");
            UploadId::parse(path.file_stem().filter(|_| is_state)?.to_str()?)
        });
        Ok(ids.collect())
    }

    /// Takes the bytes of an upload as a file that waits for its name.
    pub fn take_upload(&self, id: &UploadId) -> Result<Staged, BankError> {
        let (file, temporary) = (self.open_upload(id)?, self.upload_file(id, "part"));
        // Where it does not get its name it is still the upload's.
        Ok(Staged { file, temporary, is_own: false })
    }

    /// Ends an upload.
    pub fn remove_upload(&self, id: &UploadId) -> Result<(), BankError> {
        remove(&self.upload_file(id, "state"))?;
        remove(&self.upload_file(id, "part"))
    }

    pub(super) fn pending_nar(&self, name: NarFileName) -> PathBuf {
        self.root().join(PENDING).join(name.file_name())
    }

    pub(super) fn pending_part(&self, name: NarFileName, ending: &str) -> PathBuf {
        append(&self.pending_nar(name), ending)
    }

    fn upload_file(&self, id: &UploadId, ending: &str) -> PathBuf {
        self.root().join(UPLOADS).join(format!("{}.{ending}", id.as_str()))
    }
}

fn append(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::cache_info::CacheInfo;
    use crate::nix::hash::Sha256;
    use crate::nix::store_path::StoreDir;

    #[test]
    fn what_does_not_get_its_name_leaves_no_facts_and_no_listing() {
        let root = tempfile::tempdir().unwrap();
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        let bank = Bank::open(root.path().into(), &info).unwrap();
        bank.prepare_for_pushes().unwrap();
        let name = NarFileName::bare(Sha256::of(b"nar"));
        // No file takes the place of a directory.
        std::fs::create_dir(bank.pending_nar(name)).unwrap();
        let staged = Staged::create(bank.root()).unwrap();
        staged.write(b"nar").unwrap();
        let added =
            bank.add_pending(name, &staged, b"facts", Some(b"listing"), Durability::WithCommit);
        assert!(matches!(added, Err(BankError::Io { .. })), "{added:?}");
        drop(staged);
        assert_eq!(entries(&bank.root().join(PENDING)).unwrap(), [bank.pending_nar(name)]);
        assert_eq!(entries(&bank.root().join("tmp")).unwrap(), [] as [PathBuf; 0]);
    }
}
