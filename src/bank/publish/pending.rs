//! What has come and cannot be seen yet: NARs without a narinfo, and uploads of which parts came.
//!
//! ```text
//! pending/<hash>.nar[.zst|…]          the NAR as it will be stored, by the name it came under
//! pending/<hash>.nar[.zst|…].facts    what was computed of it; the caller's format
//! pending/<hash>.nar[.zst|…].ls       its listing, if it has one
//! uploads/<id>.part                   the bytes so far
//! uploads/<id>.state                  how many of them are good; the caller's format
//! ```

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{
    PENDING, Published, Staged, UPLOADS, entries, io_error, remove, sync_directory, system,
};
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
    /// Keeps a NAR until its narinfo comes. One that is there already stays.
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
        for (ending, bytes) in [("facts", Some(facts)), ("ls", listing)] {
            let Some(bytes) = bytes else { continue };
            let staged = Staged::create(self.root())?;
            staged.write(bytes)?;
            if now {
                staged.sync()?;
            }
            // The same NAR has the same facts, but for those that a broken process left.
            staged.rename_over(&self.pending_part(name, ending))?;
        }
        let (Published::New | Published::AlreadyThere) = nar.rename(&self.pending_nar(name))?;
        if now {
            sync_directory(&self.root().join(PENDING))?;
        }
        Ok(())
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

    /// Lets go of what has waited for longer than `age`: NARs and uploads. Says how many.
    ///
    /// A clock that was set back makes nothing old; what is from the future waits on.
    pub fn remove_waiting(&self, age: Duration, now: SystemTime) -> Result<u64, BankError> {
        let mut removed = 0;
        for directory in [PENDING, UPLOADS] {
            for path in entries(&self.root().join(directory))? {
                let Ok(changed) = std::fs::metadata(&path).and_then(|found| found.modified())
                else {
                    continue;
                };
                if now.duration_since(changed).is_ok_and(|waited| waited > age) {
                    remove(&path)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
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
        self.write_upload_state(id, state)
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
        self.read_small(&self.upload_file(id, "state"))
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
        Ok(Staged { file: self.open_upload(id)?, temporary: self.upload_file(id, "part") })
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

fn append(path: &std::path::Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
