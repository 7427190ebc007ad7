//! One NAR on its way to the server.
//!
//! The tree is read ahead on a pool ([`NarStream`]) and compressed to the seekable form that the server
//! keeps as it is. It is hashed there, against the database's NarHash, and not here. What is small
//! goes in one request. The rest goes in parts of [`native::PART_SIZE`]: one is made while the other
//! is sent, so that an upload holds two of them and no more. Where the server has the beginning
//! already, it is made again (the same input gives the same bytes) and not sent.
//!
//! Nothing of a NAR counts before it is whole: what vanishes while it is read is an error that names
//! the path, what differs is refused by the server, and what was sent of it is given up.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::events::Events;
use super::remote::{Remote, RemoteError};
use super::retry::{Backoff, Patience, Stop, random};
use super::window::Window;
use crate::codec::seekable::{Encoder, FRAME_SIZE, Pool, Settings, Summary};
use crate::fault;
use crate::native::{self, FinishUpload, NewUpload, UploadState};
use crate::nix::nar;
use crate::nix::path_info::PathInfo;
use crate::source::local::tree::{NarStream, ReadPool, StoreHandle, StoreTree, TreeError};

/// What is no larger than this fits one request, however badly it compresses.
const SMALL: u64 = native::PART_SIZE as u64 - (256 << 10);
/// From here on several cores compress one NAR; below, there are other NARs for them.
const MANY_FRAMES: u64 = 4 * FRAME_SIZE as u64;
/// More threads than this would hold more memory than one upload may: two frames each.
const MAX_COMPRESSORS: usize = 6;
/// How often an upload begins anew because the server has lost it.
const MAX_RESTARTS: usize = 4;

/// Why a NAR did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The path is not what the database says, or is gone.
    #[error("it cannot be read as it was registered: {0}")]
    Tree(#[from] TreeError),
    /// It could not be compressed.
    #[error("it cannot be compressed: {0}")]
    Compress(io::Error),
    /// The server did not take it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The server keeps losing it.
    #[error("the server lost the upload {MAX_RESTARTS} times")]
    Lost,
    /// Somebody wants us to stop; what was sent is kept for a day.
    #[error("stopped")]
    Stopped,
}

impl UploadError {
    /// Whether it is about this path: others may go well.
    pub const fn is_about_the_path(&self) -> bool {
        matches!(
            self,
            Self::Tree(_)
                | Self::Compress(_)
                | Self::Lost
                | Self::Remote(RemoteError::Refused { .. })
        )
    }
}

/// What all uploads of a push share.
pub(super) struct Uploader<'a> {
    remote: &'a Remote,
    store: StoreHandle,
    readers: Arc<ReadPool>,
    compressors: OnceLock<Pool>,
    settings: Settings,
    form: String,
    pub(super) trouble: Trouble<'a>,
}

/// What is done about errors that pass.
pub(super) struct Trouble<'a> {
    pub(super) patience: Patience,
    pub(super) stop: &'a Stop,
    pub(super) events: &'a dyn Events,
    /// Told of every sign that it is too much.
    pub(super) window: Mutex<Window>,
    pub(super) started: Instant,
}

/// A run of bytes of the compressed form.
struct Part {
    bytes: Vec<u8>,
    /// Of the whole, with the last part.
    summary: Option<Summary>,
}

/// Cuts what the encoder writes into parts.
struct PartWriter {
    bytes: Vec<u8>,
    parts: SyncSender<Part>,
}

/// Why the sending of parts ends early.
enum Cut {
    /// The server has all of it.
    Complete,
    /// The server has lost what it had: from the beginning.
    Restart,
    Failed(UploadError),
}

impl<E: Into<UploadError>> From<E> for Cut {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Trouble<'_> {
    /// Asks again and again, as long as errors pass and patience lasts.
    pub(super) fn again<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, RemoteError>,
    ) -> Result<T, UploadError> {
        let mut waits = Waits::default();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait(error, &mut waits)?,
            }
        }
    }

    /// Waits before the next try, or gives the error back if there is to be none.
    fn wait(&self, error: RemoteError, waits: &mut Waits) -> Result<(), UploadError> {
        if error.is_transient() { self.pause(error, waits) } else { Err(error.into()) }
    }

    /// The same for an error that passes here, whatever it is elsewhere.
    fn pause(&self, error: RemoteError, waits: &mut Waits) -> Result<(), UploadError> {
        self.window().overloaded(self.started.elapsed());
        let since = *waits.since.get_or_insert_with(Instant::now);
        let wait = waits.backoff.next(random(), error.retry_after());
        if !self.patience.allows(since, wait) {
            return Err(error.into());
        }
        self.events.waiting(&error, wait);
        if self.stop.wait(wait) { Err(UploadError::Stopped) } else { Ok(()) }
    }

    pub(super) fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failures in a row.
#[derive(Default)]
struct Waits {
    backoff: Backoff,
    since: Option<Instant>,
}

impl<'a> Uploader<'a> {
    /// Starts the threads that read.
    pub(super) fn start(
        remote: &'a Remote,
        store: StoreHandle,
        settings: Settings,
        level: i32,
        trouble: Trouble<'a>,
    ) -> io::Result<Self> {
        // Another libzstd may compress to other bytes, which must never be joined with ours.
        let library = zstd::zstd_safe::version_number();
        let form = format!("zstd-{level}-{FRAME_SIZE}-{library}");
        let readers = ReadPool::start(ReadPool::default_threads())?;
        let compressors = OnceLock::new();
        Ok(Self { remote, store, readers, compressors, settings, form, trouble })
    }

    /// Sends the NAR of a path, unless the server has it, and says how many bytes went.
    pub(super) fn upload(&self, info: &PathInfo) -> Result<u64, UploadError> {
        if info.nar_size <= SMALL {
            let mut bytes = Vec::new();
            let (_, bytes) = self.encode(info, &mut bytes)?;
            return self.put(info, bytes);
        }
        for _ in 0..MAX_RESTARTS {
            match self.send_parts(info) {
                Ok(sent) => return Ok(sent),
                Err(Cut::Complete) => return Ok(0),
                Err(Cut::Restart) => {}
                Err(Cut::Failed(error)) => return Err(error),
            }
        }
        Err(UploadError::Lost)
    }

    fn put(&self, info: &PathInfo, bytes: &[u8]) -> Result<u64, UploadError> {
        self.trouble.again(|| self.remote.put_nar(info.nar_hash, info.nar_size, bytes))?;
        self.trouble.events.sent(bytes.len() as u64);
        Ok(bytes.len() as u64)
    }

    /// Reads and compresses a path into `writer`.
    ///
    /// It is not hashed here: the server hashes it, and takes nothing but the NAR that was promised.
    fn encode<W: Write>(&self, info: &PathInfo, writer: W) -> Result<(Summary, W), UploadError> {
        let limits = nar::Limits { max_size: u64::MAX, ..nar::Limits::default() };
        let tree = StoreTree::new(&self.store, &info.path, limits);
        let mut stream = NarStream::start(&self.readers, tree, None, None);
        let mut encoder = if info.nar_size < MANY_FRAMES {
            Encoder::new(writer, self.settings).map_err(UploadError::Compress)?
        } else {
            let pool = self.compressors().map_err(UploadError::Compress)?;
            Encoder::with_pool(writer, self.settings, pool)
        };
        let mut moved = 0i64;
        let encoded = (|| {
            while let Some(chunk) = stream.next_blocking() {
                let chunk = chunk?;
                if self.trouble.stop.is_stopped() {
                    return Err(UploadError::Stopped);
                }
                encoder.write_all(&chunk).map_err(UploadError::Compress)?;
                let bytes = i64::try_from(chunk.len()).unwrap_or(0);
                moved += bytes;
                self.trouble.events.moved(bytes);
            }
            encoder.finish().map_err(UploadError::Compress)
        })();
        if encoded.is_err() {
            self.trouble.events.moved(-moved);
        }
        encoded
    }

    fn compressors(&self) -> io::Result<Pool> {
        if let Some(pool) = self.compressors.get() {
            return Ok(pool.clone());
        }
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).get();
        let threads = NonZeroUsize::new(cores.min(MAX_COMPRESSORS)).unwrap_or(NonZeroUsize::MIN);
        let pool = Pool::new(threads)?;
        Ok(self.compressors.get_or_init(|| pool).clone())
    }

    /// Makes parts on a thread of their own, and sends them from this one.
    fn send_parts(&self, info: &PathInfo) -> Result<u64, Cut> {
        std::thread::scope(|scope| {
            // Nothing waits in the channel: there is one part being made and one being sent.
            let (parts, made) = sync_channel(0);
            let maker = scope.spawn(move || {
                let writer = PartWriter { bytes: Vec::new(), parts };
                let (summary, writer) = self.encode(info, writer)?;
                // Where nobody listens any more, nobody needs it.
                let _ = writer.parts.send(Part { bytes: writer.bytes, summary: Some(summary) });
                Ok::<(), UploadError>(())
            });
            let mut sending = Sending { uploader: self, info, state: None, begun: 0, sent: 0 };
            let mut result = Ok(());
            for part in &made {
                result = sending.part(&part);
                if result.is_err() {
                    break;
                }
            }
            // What is made now has no taker, which ends the maker.
            drop(made);
            let maker = maker.join().unwrap_or_else(|_| {
                Err(UploadError::Compress(io::Error::other("the compressing thread panicked")))
            });
            match (result, maker) {
                (Err(cut), _) => Err(cut),
                (Ok(()), Err(error)) => {
                    if !matches!(error, UploadError::Stopped) {
                        sending.abandon();
                    }
                    Err(Cut::Failed(error))
                }
                (Ok(()), Ok(())) => Ok(sending.sent),
            }
        })
    }
}

/// An upload in parts, as far as it is.
struct Sending<'a> {
    uploader: &'a Uploader<'a>,
    info: &'a PathInfo,
    /// What the server said last.
    state: Option<UploadState>,
    /// Where the part at hand begins.
    begun: u64,
    sent: u64,
}

impl Sending<'_> {
    fn part(&mut self, part: &Part) -> Result<(), Cut> {
        if self.state.is_none() && part.summary.is_some() {
            // It is the first and the last.
            self.sent = self.uploader.put(self.info, &part.bytes)?;
            return Ok(());
        }
        self.send(&part.bytes)?;
        match &part.summary {
            Some(summary) => self.finish(summary),
            None => Ok(()),
        }
    }

    /// Sends what the server does not have of the bytes that come next.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        let trouble = &self.uploader.trouble;
        let mut state = match self.state.take() {
            Some(state) => state,
            None => trouble.again(|| self.uploader.remote.begin(&self.new_upload()))?,
        };
        let end = self.begun + bytes.len() as u64;
        let mut waits = Waits::default();
        let mut conflicted = false;
        loop {
            if state.complete {
                return Err(Cut::Complete);
            }
            if state.offset >= end {
                self.begun = end;
                self.state = Some(state);
                return Ok(());
            }
            if trouble.stop.is_stopped() {
                return Err(Cut::Failed(UploadError::Stopped));
            }
            let missing =
                state.offset.checked_sub(self.begun).and_then(|have| usize::try_from(have).ok());
            // The server has less than it had: the parts before this one are gone.
            let Some(rest) = missing.and_then(|have| bytes.get(have..)) else {
                return Err(Cut::Restart);
            };
            // Where a test has us killed between two parts.
            let _ = fault::point("push.part");
            match self.uploader.remote.patch(&state.upload, state.offset, rest) {
                Ok(next) => {
                    let sent = next.offset.saturating_sub(state.offset);
                    self.sent += sent;
                    trouble.events.sent(sent);
                    waits = Waits::default();
                    conflicted = false;
                    state = next;
                }
                Err(error) => {
                    match error.status() {
                        Some(404 | 410) => return Err(Cut::Restart),
                        // It is at another offset; or another push of the same NAR, which we leave the
                        // way to, is writing to it.
                        Some(409) if !conflicted => conflicted = true,
                        Some(409) => trouble.pause(error, &mut waits)?,
                        _ => trouble.wait(error, &mut waits)?,
                    }
                    // It may have arrived though no answer came.
                    state = match trouble.again(|| self.uploader.remote.upload(&state.upload)) {
                        Err(UploadError::Remote(error)) if is_gone(&error) => {
                            return Err(Cut::Restart);
                        }
                        other => other?,
                    };
                }
            }
        }
    }

    fn finish(&self, summary: &Summary) -> Result<(), Cut> {
        let Some(state) = &self.state else { return Err(Cut::Restart) };
        let request = FinishUpload { file_size: summary.compressed_size, file_hash: None };
        let (remote, trouble) = (self.uploader.remote, &self.uploader.trouble);
        let mut waits = Waits::default();
        let finished = loop {
            match trouble.again(|| remote.finish(&state.upload, &request)) {
                // Another push of the same NAR is writing or finishing: then it is soon there or gone.
                Err(UploadError::Remote(error)) if error.status() == Some(409) => {
                    let now = remote.upload(&state.upload);
                    if now.is_ok_and(|now| now.offset < summary.compressed_size) {
                        // It has lost some of it, which will not come back.
                        return Err(Cut::Restart);
                    }
                    trouble.pause(error, &mut waits)?;
                }
                finished => break finished,
            }
        };
        match finished {
            Ok(_) => Ok(()),
            // Gone, or joined from parts that do not belong together: not if it is all from us.
            Err(UploadError::Remote(error))
                if is_gone(&error)
                    || (error.status() == Some(422) && self.was_adopted(summary)) =>
            {
                Err(Cut::Restart)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether some of it was sent by an earlier process.
    const fn was_adopted(&self, summary: &Summary) -> bool {
        self.sent < summary.compressed_size
    }

    /// Has the server forget what it has: it is not what it was to be.
    fn abandon(&self) {
        if let Some(state) = &self.state {
            // What it does not forget now it forgets in a day.
            let _ = self.uploader.remote.abandon(&state.upload);
        }
    }

    fn new_upload(&self) -> NewUpload {
        NewUpload {
            nar_hash: self.info.nar_hash,
            nar_size: self.info.nar_size,
            form: self.uploader.form.clone(),
        }
    }
}

fn is_gone(error: &RemoteError) -> bool {
    matches!(error.status(), Some(404 | 410))
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() == native::PART_SIZE {
            let full = std::mem::replace(&mut self.bytes, Vec::with_capacity(native::PART_SIZE));
            self.parts
                .send(Part { bytes: full, summary: None })
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        let taken = bytes.len().min(native::PART_SIZE - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
