//! Who pushed what, for `snowbank why`.
//!
//! Written by a thread of its own, many records in one transaction, so that no push waits for it. What
//! is lost with a crash is what was noted in the last moments, and never a path.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Pusher;
use crate::index::state::{ConflictRecord, NarName, PushRecord, StateDb, StateError};
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePathHash;

/// Notes that wait for the thread; more, and pushes wait too.
const WAITING: usize = 10_000;
/// Notes in one transaction, at most.
const AT_ONCE: usize = 1_000;

/// Takes notes of pushes. Dropped, it writes what it has.
pub struct Recorder {
    notes: Option<SyncSender<Note>>,
    thread: Option<JoinHandle<()>>,
}

enum Note {
    Push(PushRecord),
    Conflict(ConflictRecord),
    Name(NarName),
}

impl Recorder {
    /// Starts the thread. Fails when the system gives none.
    pub fn start(state: Arc<StateDb>) -> std::io::Result<Self> {
        let (notes, to_write) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("record".into())
            .spawn(move || write_all(&state, &to_write))?;
        Ok(Self { notes: Some(notes), thread: Some(thread) })
    }

    /// Notes that a path was published.
    pub(super) fn pushed(&self, cache: &str, info: &PathInfo, pusher: &Pusher) {
        self.note(Note::Push(PushRecord {
            cache: cache.into(),
            path: info.path.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            pusher: pusher.name.clone(),
            token: pusher.token().map(str::to_owned),
            address: pusher.address.clone(),
            at: now(),
        }));
    }

    /// Notes under which name a NAR was pushed: Nix remembers it, and asks for it again.
    pub(super) fn named(&self, cache: &str, name: NarFileName, narinfo: &NarInfo) {
        self.note(Note::Name(NarName {
            cache: cache.into(),
            name,
            nar_hash: narinfo.info.nar_hash,
            compression: narinfo.compression.clone(),
        }));
    }

    /// Notes that another NAR of a path was refused.
    pub(super) fn conflicted(
        &self,
        cache: &str,
        path: StorePathHash,
        kept: Sha256,
        refused: Sha256,
        pusher: &Pusher,
    ) {
        self.note(Note::Conflict(ConflictRecord {
            cache: cache.into(),
            path,
            kept,
            refused,
            pusher: pusher.name.clone(),
            token: pusher.token().map(str::to_owned),
            address: pusher.address.clone(),
            at: now(),
        }));
    }

    fn note(&self, note: Note) {
        if let Some(notes) = &self.notes
            && notes.send(note).is_err()
        {
            tracing::error!("the thread that notes who pushed what has ended");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.notes = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that notes who pushed what has panicked");
        }
    }
}

fn write_all(state: &StateDb, notes: &Receiver<Note>) {
    while let Ok(first) = notes.recv() {
        let (mut pushes, mut names) = (Vec::new(), Vec::new());
        for note in std::iter::once(first).chain(notes.try_iter().take(AT_ONCE - 1)) {
            match note {
                Note::Push(push) => pushes.push(push),
                Note::Name(name) => names.push(name),
                Note::Conflict(conflict) => say(state.record_conflict(&conflict)),
            }
        }
        if !pushes.is_empty() {
            say(state.record_pushes(&pushes));
        }
        if !names.is_empty() {
            say(state.record_nar_names(&names));
        }
    }
}

fn say(written: Result<(), StateError>) {
    if let Err(error) = written {
        tracing::error!("who pushed what was not kept: {error}");
    }
}

/// Seconds since 1970; a clock before that counts as it.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
