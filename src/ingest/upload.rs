//! NARs on their way in: whole, as stock Nix sends them, or in parts.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Class;
use super::facts::Facts;
use super::nar::{Keep, NarLimits, Output, Taken, VerifiedNar, check, read_back, take};
use super::publish::{Fresh, Ingest};
use super::quota::Reservation;
use super::refusal::PushError;
use crate::bank::BankError;
use crate::bank::publish::Staged;
use crate::bank::publish::pending::{Durability, UploadId};
use crate::codec::Compression;
use crate::metrics::ingest::Stage;
use crate::native::{FinishUpload, NewUpload, PART_SIZE, UploadState};
use crate::nix::hash::{Hasher, Sha256};
use crate::nix::nar::Listing;
use crate::nix::nar_url::NarFileName;

/// How much of a body is written at once, in bytes.
const COPY_BUFFER: usize = 256 * 1024;
/// Uploads in parts that may be unfinished in one cache. Each is looked at when another begins.
const MAX_UNFINISHED: usize = 10_000;
/// The longest name of a form, in bytes.
const MAX_FORM: usize = 64;

/// What became of a NAR that was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Added {
    /// It waits.
    Kept,
    /// Another file of the same NAR waits already, and it is not needed.
    WasThere,
}

/// The uploads that a request is writing to.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashSet<UploadId>>);

/// The right to write to an upload.
pub(super) struct Writing<'a> {
    uploads: &'a Uploads,
    id: UploadId,
}

/// What is kept of an upload between its parts, and over a restart.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    format: u32,
    nar_hash: Sha256,
    nar_size: u64,
    form: String,
    pusher: String,
    offset: u64,
}

const FORMAT: u32 = 1;

impl Uploads {
    pub(super) fn write(&self, id: &UploadId) -> Option<Writing<'_>> {
        let is_free = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        is_free.then(|| Writing { uploads: self, id: id.clone() })
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Ingest {
    /// Takes a NAR that is named by the hash of what is sent, and keeps it until its narinfo comes.
    pub fn take_nar(&self, name: NarFileName, body: impl Read) -> Result<(), PushError> {
        self.admitted(|| self.take_named(name, body))
    }

    fn take_named(&self, name: NarFileName, body: impl Read) -> Result<(), PushError> {
        let (compression, body) = compression_of_body(name, body)?;
        let room = self.quota.reserve();
        let (nar, staged) = self.encode(body, compression, &self.limits, &room)?;
        if nar.received.hash != name.hash {
            return Err(PushError::OtherHash { declared: name.hash, computed: nar.received.hash });
        }
        if self.add(name, &staged, &nar, Durability::Now)? == Added::Kept {
            room.keep();
        }
        Ok(())
    }

    /// Takes a NAR that comes in one request of the native API. It is durable with the commit.
    pub fn take_whole(
        &self,
        nar_hash: Sha256,
        nar_size: u64,
        body: impl Read,
    ) -> Result<UploadState, PushError> {
        let promised = (nar_hash, nar_size);
        self.admitted(|| self.take_promised(promised, Compression::Zstd, body))?;
        Ok(complete(nar_hash, nar_size))
    }

    /// Begins an upload, or finds the one that the same pusher left.
    pub fn begin_upload(&self, new: &NewUpload, pusher: &str) -> Result<UploadState, PushError> {
        let is_form = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if new.form.is_empty() || new.form.len() > MAX_FORM || !new.form.bytes().all(is_form) {
            return Err(PushError::Object {
                what: "form",
                why: format!("1 to {MAX_FORM} of a-z 0-9 - were expected"),
            });
        }
        self.admitted(|| self.find_or_create(new, pusher))
    }

    fn find_or_create(&self, new: &NewUpload, pusher: &str) -> Result<UploadState, PushError> {
        if let Some((_, facts)) = self.pending(NarFileName::bare(new.nar_hash))? {
            return Ok(complete(facts.nar_hash, facts.nar_size));
        }
        let unfinished = self.bank.uploads()?;
        if unfinished.len() >= MAX_UNFINISHED {
            let count = unfinished.len();
            return Err(PushError::TooMany(format!(
                "{count} uploads are unfinished; finish or delete some, or wait until they are old"
            )));
        }
        for id in unfinished {
            let Some(kept) = self.kept(&id)? else { continue };
            let same = kept.nar_hash == new.nar_hash
                && kept.nar_size == new.nar_size
                && kept.form == new.form
                && kept.pusher == pusher;
            // One that another request writes to belongs to a client that lives.
            if same && self.uploads.write(&id).is_some() {
                return Ok(kept.state(&id));
            }
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| PushError::Body(format!("no random bytes: {error}")))?;
        let id = UploadId::new(random);
        let kept = Kept {
            format: FORMAT,
            nar_hash: new.nar_hash,
            nar_size: new.nar_size,
            form: new.form.clone(),
            pusher: pusher.to_owned(),
            offset: 0,
        };
        self.bank.create_upload(&id, &kept.to_json())?;
        Ok(kept.state(&id))
    }

    /// How far an upload is.
    pub fn upload(&self, id: &UploadId, pusher: &str) -> Result<UploadState, PushError> {
        Ok(self.upload_of(id, pusher)?.state(id))
    }

    /// Takes the next part of an upload: all of it, or nothing.
    pub fn append(
        &self,
        id: &UploadId,
        pusher: &str,
        offset: u64,
        hash: Sha256,
        part: impl Read,
    ) -> Result<UploadState, PushError> {
        self.admitted(|| self.append_part(id, pusher, offset, hash, part))
    }

    fn append_part(
        &self,
        id: &UploadId,
        pusher: &str,
        offset: u64,
        hash: Sha256,
        part: impl Read,
    ) -> Result<UploadState, PushError> {
        let Some(_writing) = self.uploads.write(id) else { return Err(PushError::Writing) };
        let mut kept = self.upload_of(id, pusher)?;
        if offset != kept.offset {
            return Err(PushError::Offset { expected: kept.offset, got: offset });
        }
        let file = self.bank.open_upload(id)?;
        let at = |source| written(id, source);
        // A process that ended within a part may have left bytes behind those that are good.
        let size = file.metadata().map_err(at)?.len();
        let Some(surplus) = size.checked_sub(offset) else {
            // Somebody has cut it: it is begun anew.
            self.bank.remove_upload(id)?;
            self.quota.give_back(size);
            return Err(PushError::NoUpload(id.as_str().into()));
        };
        truncate(&file, offset).map_err(at)?;
        self.quota.give_back(surplus);
        let room = self.quota.reserve();
        let written = write_part(id, &file, &room, offset, hash, part).and_then(|size| {
            kept.offset += size;
            Ok(self.bank.advance_upload(id, &file, &kept.to_json())?)
        });
        if let Err(error) = written {
            // The state may have got its name all the same, and what it says stays. Else the bytes go
            // before the room for them is given back; where that fails the next part cuts them off.
            if self.kept(id).ok().flatten().is_some_and(|now| now.offset != offset) {
                room.keep();
            } else {
                let _ = truncate(&file, offset);
            }
            return Err(error);
        }
        room.keep();
        Ok(kept.state(id))
    }

    /// Takes the NAR of which all parts have come. What is not the NAR that was promised is gone.
    pub fn finish_upload(
        &self,
        id: &UploadId,
        pusher: &str,
        finish: &FinishUpload,
    ) -> Result<UploadState, PushError> {
        let Some(_writing) = self.uploads.write(id) else { return Err(PushError::Writing) };
        let kept = self.upload_of(id, pusher)?;
        if finish.file_size != kept.offset {
            return Err(PushError::Offset { expected: kept.offset, got: finish.file_size });
        }
        let file = self.bank.open_upload(id)?;
        // What a part that did not come whole may have left is not of it.
        truncate(&file, kept.offset).map_err(|source| written(id, source))?;
        match self.admitted(|| self.finish_file(id, &kept, finish, &file)) {
            Ok(()) => {
                self.bank.remove_upload(id)?;
                Ok(complete(kept.nar_hash, kept.nar_size))
            }
            Err(error) => {
                // Where the disk is the reason it can be finished later.
                if !matches!(error.class(), Class::NoSpace | Class::Failed) {
                    self.bank.remove_upload(id)?;
                    self.quota.give_back(kept.offset);
                }
                Err(error)
            }
        }
    }

    fn finish_file(
        &self,
        id: &UploadId,
        kept: &Kept,
        finish: &FinishUpload,
        file: &File,
    ) -> Result<(), PushError> {
        let limits = self.promised(kept.nar_size);
        let same_file = |nar: &VerifiedNar| match (finish.file_hash, nar.received.hash) {
            (Some(declared), computed) if declared != computed => {
                Err(PushError::OtherHash { declared, computed })
            }
            _ => Ok(()),
        };
        match check(file, &limits)? {
            Taken::Stored(nar) => {
                same_file(&nar)?;
                // The file has our form: it is what waits, and not a copy of it.
                let staged = self.bank.take_upload(id)?;
                if self.add_promised((kept.nar_hash, kept.nar_size), &nar, &staged)?
                    == Added::WasThere
                {
                    self.quota.give_back(kept.offset);
                }
                Ok(())
            }
            Taken::NotSeekable => {
                let room = self.quota.reserve();
                let body = read_back(file);
                let (nar, staged) = self.encode(body, Compression::Zstd, &limits, &room)?;
                same_file(&nar)?;
                if self.add_promised((kept.nar_hash, kept.nar_size), &nar, &staged)? == Added::Kept
                {
                    room.keep();
                }
                self.quota.give_back(kept.offset);
                Ok(())
            }
        }
    }

    /// Ends an upload.
    pub fn cancel_upload(&self, id: &UploadId, pusher: &str) -> Result<(), PushError> {
        let Some(_writing) = self.uploads.write(id) else { return Err(PushError::Writing) };
        let kept = self.upload_of(id, pusher)?;
        self.bank.remove_upload(id)?;
        self.quota.give_back(kept.offset);
        Ok(())
    }

    /// Keeps a NAR that was verified until it is made visible.
    pub(super) fn add(
        &self,
        name: NarFileName,
        staged: &Staged,
        nar: &VerifiedNar,
        durability: Durability,
    ) -> Result<Added, PushError> {
        let _waiting = self.lock_waiting(name);
        let there = self.fresh().get(&name).copied();
        // One that this process verified is never replaced: somebody may be about to publish it with
        // the facts that it has.
        if let Some(there) = there
            && self.bank.pending_facts(name)?.is_some()
        {
            if durability == Durability::Now && there.durability != Durability::Now {
                self.bank.sync_pending(name)?;
            }
            let durability =
                if durability == Durability::Now { durability } else { there.durability };
            self.fresh().insert(name, Fresh::now(durability));
            return Ok(Added::WasThere);
        }
        let shared = self.shared(nar)?;
        let staged = shared.as_ref().unwrap_or(staged);
        let replaced = self.bank.open_pending(name).ok().flatten().map_or(0, |(_, size)| size);
        let facts = Facts::of(nar).to_json();
        let listing = nar.listing.as_ref().map(Listing::to_json);
        let began = Instant::now();
        self.bank.add_pending(name, staged, &facts, listing.as_deref(), durability)?;
        self.took(Stage::Keep, began);
        self.quota.give_back(replaced);
        self.no_room.clear();
        self.fresh().insert(name, Fresh::now(durability));
        Ok(Added::Kept)
    }

    /// Takes a NAR of which NarHash and NarSize are known, and nothing that has others.
    pub(super) fn take_promised(
        &self,
        promised: (Sha256, u64),
        compression: Compression,
        body: impl Read,
    ) -> Result<Added, PushError> {
        let room = self.quota.reserve();
        let limits = self.promised(promised.1);
        let (nar, staged) = self.store(body, compression, &limits, &room)?;
        let added = self.add_promised(promised, &nar, &staged)?;
        if added == Added::Kept {
            room.keep();
        }
        Ok(added)
    }

    pub(super) fn add_promised(
        &self,
        promised: (Sha256, u64),
        nar: &VerifiedNar,
        staged: &Staged,
    ) -> Result<Added, PushError> {
        Self::check_promised(promised, nar)?;
        self.add(NarFileName::bare(promised.0), staged, nar, Durability::WithCommit)
    }

    /// Whether a NAR has this NarHash and NarSize.
    pub(super) fn check_promised(
        (nar_hash, nar_size): (Sha256, u64),
        nar: &VerifiedNar,
    ) -> Result<(), PushError> {
        if nar.nar_hash != nar_hash {
            return Err(PushError::OtherHash { declared: nar_hash, computed: nar.nar_hash });
        }
        if nar.nar_size != nar_size {
            return Err(PushError::OtherSize { declared: nar_size, computed: nar.nar_size });
        }
        Ok(())
    }

    /// What is allowed to a NAR of which the size was said: not a byte more.
    pub(super) fn promised(&self, nar_size: u64) -> NarLimits {
        let mut limits = self.limits;
        limits.nar.max_size = limits.nar.max_size.min(nar_size);
        limits
    }

    /// Stores a NAR in our form: as it comes where it has it.
    pub(super) fn store(
        &self,
        body: impl Read,
        compression: Compression,
        limits: &NarLimits,
        room: &Reservation,
    ) -> Result<(VerifiedNar, Staged), PushError> {
        match self.stage(body, compression, limits, Keep::IfSeekable, room)? {
            (Taken::Stored(nar), staged) => Ok((nar, staged)),
            (Taken::NotSeekable, staged) => {
                self.encode(read_back(staged.file()), compression, limits, room)
            }
        }
    }

    /// Compresses a NAR into our form.
    fn encode(
        &self,
        body: impl Read,
        compression: Compression,
        limits: &NarLimits,
        room: &Reservation,
    ) -> Result<(VerifiedNar, Staged), PushError> {
        match self.stage(body, compression, limits, Keep::Encoded, room)? {
            (Taken::Stored(nar), staged) => Ok((nar, staged)),
            (Taken::NotSeekable, _) => unreachable!("what is encoded here has our form"),
        }
    }

    /// Runs the pipeline into a temporary file of the bank.
    fn stage(
        &self,
        body: impl Read,
        compression: Compression,
        limits: &NarLimits,
        keep: Keep,
        room: &Reservation,
    ) -> Result<(Taken, Staged), PushError> {
        let staged = Staged::create(self.bank.root())?;
        let output = Output::within(staged.file(), room);
        let began = Instant::now();
        let taken = take(body, compression, limits, keep, &self.pool, output)?;
        self.took(Stage::Receive, began);
        Ok((taken, staged))
    }

    /// What is kept of an upload of this pusher; of another's nothing is said.
    fn upload_of(&self, id: &UploadId, pusher: &str) -> Result<Kept, PushError> {
        let kept = self.kept(id)?.filter(|kept| kept.pusher == pusher);
        kept.ok_or_else(|| PushError::NoUpload(id.as_str().into()))
    }

    fn kept(&self, id: &UploadId) -> Result<Option<Kept>, PushError> {
        let text = match self.bank.upload_state(id) {
            // Something else has its name: it is no upload, and goes with its age.
            Err(BankError::Damaged { .. }) => None,
            other => other?,
        };
        Ok(text.and_then(|text| {
            serde_json::from_slice(&text).ok().filter(|kept: &Kept| kept.format == FORMAT)
        }))
    }
}

impl Kept {
    fn to_json(&self) -> Vec<u8> {
        // Numbers and texts only: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn state(&self, id: &UploadId) -> UploadState {
        UploadState {
            upload: id.as_str().into(),
            nar_hash: self.nar_hash,
            nar_size: self.nar_size,
            offset: self.offset,
            complete: false,
        }
    }
}

/// How the bytes of a NAR of this name are compressed, and all of them.
///
/// Nix gives a name without an ending to what it compresses as gzip, so there the first bytes tell.
fn compression_of_body<R: Read>(
    name: NarFileName,
    mut body: R,
) -> Result<(Compression, impl Read + use<R>), PushError> {
    let mut start = Vec::new();
    let compression = if name.is_bare() {
        let read = body.by_ref().take(MAGIC).read_to_end(&mut start);
        read.map_err(|error| PushError::Body(error.to_string()))?;
        Compression::from_magic(&start)
    } else {
        compression_of(name)?
    };
    Ok((compression, io::Cursor::new(start).chain(body)))
}

/// The bytes that tell a compression.
const MAGIC: u64 = 6;

/// How the bytes of a NAR of this name are compressed, by its ending.
pub(super) fn compression_of(name: NarFileName) -> Result<Compression, PushError> {
    let extension = name.extension();
    Compression::from_extension(extension)
        .ok_or_else(|| PushError::Compression(extension.trim_start_matches('.').to_owned()))
}

/// Writes a part behind the first `offset` bytes of an upload, and gives its size.
fn write_part(
    id: &UploadId,
    mut file: &File,
    room: &Reservation,
    offset: u64,
    hash: Sha256,
    mut part: impl Read,
) -> Result<u64, PushError> {
    let at = |source| written(id, source);
    file.seek(SeekFrom::Start(offset)).map_err(at)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; COPY_BUFFER];
    let mut size = 0;
    loop {
        let count = part.read(&mut buffer).map_err(|error| PushError::Body(error.to_string()))?;
        if count == 0 {
            break;
        }
        size += count;
        if size > PART_SIZE {
            return Err(PushError::TooMany(format!(
                "a part of more than {PART_SIZE} bytes; send smaller ones"
            )));
        }
        hasher.update(&buffer[..count]);
        Output::within(file, room).write_all(&buffer[..count]).map_err(at)?;
    }
    let (computed, size) = hasher.finish();
    if computed != hash {
        return Err(PushError::Part { declared: hash, computed });
    }
    Ok(size)
}

/// Cuts an upload off behind what is good of it.
fn truncate(file: &File, size: u64) -> io::Result<()> {
    crate::fault::point("ingest.truncate")?;
    file.set_len(size)
}

fn written(id: &UploadId, source: io::Error) -> PushError {
    BankError::Io { path: id.as_str().into(), source }.into()
}

const fn complete(nar_hash: Sha256, nar_size: u64) -> UploadState {
    UploadState { upload: String::new(), nar_hash, nar_size, offset: 0, complete: true }
}
