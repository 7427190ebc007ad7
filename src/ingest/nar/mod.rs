//! From bytes that arrive to a verified NAR in a temporary file, of which nobody has yet said which
//! path it is.
//!
//! ```text
//!  calling thread                          second thread, for NARs of a piece or more
//!  read → FileHash → decode in limits ──┬→ NarHash → strict parse → listing → references
//!                                       └→ seekable zstd: the pool's threads compress, this one writes
//! ```
//!
//! Nothing is believed that the sender says: sizes and hashes are of the bytes that came. Whatever is
//! wrong ends it with an [`IngestError`], and then what lies in the output is nothing.
//!
//! Memory for one upload, whatever its size:
//!
//! | MiB | for |
//! |---|---|
//! | 32 | the decoder's window ([`NarLimits::decoder_memory`]), and a little |
//! | 20 | frames on their way through the pool ([`MAX_IN_FLIGHT`](codec::seekable::MAX_IN_FLIGHT) of 2 MiB, twice) |
//! | 2 | the frame that is being filled |
//! | 1 | four pieces of decoded bytes and the buffer of received ones |
//! | 5 | reference candidates ([`crate::nix::references`]), where there are very many |
//!
//! That makes 60. On top comes the listing, some hundred bytes for each file, as far as
//! [`Limits`](nar::Limits) allow one.

mod arrive;
mod inspect;

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use arrive::{Arriving, StoredBytes};
use inspect::{Inspected, Inspector};

use super::IngestError;
use super::quota::Reservation;
use crate::codec::seekable::{Encoder, MAX_FRAMES, Pool, Settings, recognise};
use crate::codec::{self, Compression, DEFAULT_MAX_RATIO, Decoder, Hashed};
use crate::fault;
use crate::nix::hash::Sha256;
use crate::nix::nar::{self, Listing};
use crate::nix::references::ReferenceCandidates;
use crate::source::growing::GrowingFile;

/// What an upload may cost, and how it is stored.
#[derive(Clone, Copy, Debug)]
pub struct NarLimits {
    /// Of the NAR itself. Where the sender has declared a NarSize, its `max_size` should be that.
    pub nar: nar::Limits,
    /// The most bytes that may come out for each that arrived, once more than
    /// [`codec::RATIO_FREE`] came out.
    pub max_ratio: u32,
    /// The most memory that a decoder may take, in bytes.
    pub decoder_memory: u64,
    /// How it is compressed for storing.
    pub encoding: Settings,
}

/// The hash and the size of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// SHA-256 of its bytes.
    pub hash: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// What turned out of a NAR that arrived; only [`take`] and [`check`] make one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedNar {
    /// SHA-256 of the uncompressed NAR.
    pub nar_hash: Sha256,
    /// Bytes of the uncompressed NAR.
    pub nar_size: u64,
    /// The file as it arrived.
    pub received: FileFacts,
    /// The file as it lies in the output, in the seekable form.
    pub stored: FileFacts,
    /// What is in it; nothing beyond the limits of a listing.
    pub listing: Option<Listing>,
    /// What it may refer to.
    pub references: ReferenceCandidates,
}

/// In which form a NAR is to lie in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Compressed here.
    Encoded,
    /// As it arrives, if that is zstd in the seekable form that we store; no other compression than
    /// [`Compression::Zstd`] can be, and those are encoded. The output must be readable as well.
    IfSeekable,
}

/// How it ended well.
#[derive(Debug)]
pub enum Taken {
    /// The NAR lies in the output in the form that we store.
    Stored(VerifiedNar),
    /// The NAR is sound, but it lies there as zstd in another form. It is stored by [`take`] with
    /// [`read_back`] of the file, [`Keep::Encoded`] and another file for output.
    NotSeekable,
}

impl Default for NarLimits {
    fn default() -> Self {
        Self {
            nar: nar::Limits::default(),
            max_ratio: DEFAULT_MAX_RATIO,
            decoder_memory: 32 << 20,
            encoding: Settings::default(),
        }
    }
}

/// Takes a NAR from `input` into `output`, a file that is empty, and whose errors are told apart from
/// those of `input`. It is written, not synced.
pub fn take(
    input: impl Read,
    compression: Compression,
    limits: &NarLimits,
    keep: Keep,
    pool: &Pool,
    output: Output<'_>,
) -> Result<Taken, IngestError> {
    if keep == Keep::IfSeekable && compression == Compression::Zstd {
        return keep_if_seekable(Arriving::copied(input, output), limits, output.file);
    }
    // What is not compressed has its NarHash for FileHash, and is not hashed twice.
    let arriving = match compression {
        Compression::None => Arriving::plain(input),
        _ => Arriving::hashed(input),
    };
    let mut decoder = decode(arriving, compression, limits)?;
    let mut encoder = Encoder::with_pool(Hashed::new(output), limits.encoding, pool.clone());
    let inspected = inspect(&mut decoder, limits.nar, |bytes| {
        encoder.write_all(bytes).map_err(IngestError::storage)
    })?;
    let (summary, output) = encoder.finish().map_err(IngestError::storage)?;
    let received = decoder.into_inner().facts();
    let received =
        received.unwrap_or(FileFacts { hash: inspected.nar_hash, size: inspected.nar_size });
    let stored = FileFacts { hash: output.finish().0, size: summary.compressed_size };
    Ok(Taken::Stored(inspected.into_verified(received, stored)))
}

/// Looks at a NAR that lies in a file already, as zstd, from its first byte to its last: what
/// [`take`] does with [`Keep::IfSeekable`], without writing.
pub fn check(file: &File, limits: &NarLimits) -> Result<Taken, IngestError> {
    keep_if_seekable(Arriving::hashed(read_back(file)), limits, file)
}

/// Reads a NAR from its first byte to its last, in any form, and writes nothing.
pub fn survey(
    input: impl Read,
    compression: Compression,
    limits: &NarLimits,
) -> Result<VerifiedNar, IngestError> {
    let arriving = match compression {
        Compression::None => Arriving::plain(input),
        _ => Arriving::hashed(input),
    };
    let mut decoder = decode(arriving, compression, limits)?;
    let inspected = inspect(&mut decoder, limits.nar, |_| Ok(()))?;
    let received = decoder.into_inner().facts();
    let received =
        received.unwrap_or(FileFacts { hash: inspected.nar_hash, size: inspected.nar_size });
    Ok(inspected.into_verified(received, received))
}

/// Reads a file of ours from its beginning, wherever its cursor is; errors are ours and not those of
/// whoever sent it.
pub fn read_back(file: &File) -> impl Read + '_ {
    StoredBytes::new(file)
}

/// Verifies a NAR whose bytes lie, or come to lie, in `file` as they arrive.
fn keep_if_seekable(
    arriving: Arriving<'_, impl Read>,
    limits: &NarLimits,
    file: &File,
) -> Result<Taken, IngestError> {
    // One more for the seek table, and one to know that there are too many.
    let decoder = decode(arriving, Compression::Zstd, limits)?;
    let mut decoder = decoder.record_frames(MAX_FRAMES as usize + 2);
    let inspected = inspect(&mut decoder, limits.nar, |_| Ok(()))?;
    let ends = decoder.frame_ends().to_vec();
    let Some(received) = decoder.into_inner().facts() else { return Ok(Taken::NotSeekable) };
    let table = recognise(file, received.size, &ends).map_err(IngestError::storage)?;
    Ok(match table {
        Some(_) => Taken::Stored(inspected.into_verified(received, received)),
        None => Taken::NotSeekable,
    })
}

fn decode<'a, R: Read>(
    arriving: Arriving<'a, R>,
    compression: Compression,
    limits: &NarLimits,
) -> Result<Decoder<Arriving<'a, R>>, IngestError> {
    let limits = codec::Limits {
        max_output: limits.nar.max_size,
        max_ratio: limits.max_ratio,
        max_memory: limits.decoder_memory,
    };
    Decoder::new(compression, arriving, limits).map_err(IngestError::Decode)
}

/// Bytes that are decoded before anybody looks at them. A NAR shorter than one piece costs no thread.
const PIECE: usize = 256 << 10;

/// Pieces that wait for the second thread; one more is looked at, and one is being filled.
const WAITING: usize = 2;

/// Decodes to the end, gives each piece to `sink`, and looks at them all, on a second thread if there
/// are several.
///
/// What is wrong with the NAR is said before what is wrong with what came after it: so it is the same
/// error each time, however the threads run.
fn inspect(
    decoder: &mut Decoder<Arriving<'_, impl Read>>,
    limits: nar::Limits,
    mut sink: impl FnMut(&[u8]) -> Result<(), IngestError>,
) -> Result<Inspected, IngestError> {
    let mut inspector = Inspector::new(limits);
    let mut first = vec![0; PIECE];
    let filled = fill(decoder, &mut first);
    inspector.push(&first).map_err(IngestError::Nar)?;
    filled?;
    sink(&first)?;
    if first.len() < PIECE {
        return inspector.finish().map_err(IngestError::Nar);
    }
    thread::scope(|scope| {
        let (pieces, to_inspect) = sync_channel::<Vec<u8>>(WAITING);
        let (used, to_fill) = channel();
        let second = thread::Builder::new()
            .name("inspect".into())
            .spawn_scoped(scope, move || {
                for piece in to_inspect {
                    inspector.push(&piece)?;
                    // Nobody fills pieces any more once all have come.
                    let _ = used.send(piece);
                }
                Ok(inspector)
            })
            .map_err(IngestError::Storage)?;
        let mut spare = vec![first];
        let mut decode_all = || {
            loop {
                let mut piece = to_fill.try_recv().ok().or_else(|| spare.pop()).unwrap_or_default();
                piece.resize(PIECE, 0);
                let filled = fill(decoder, &mut piece);
                if piece.is_empty() {
                    return filled;
                }
                sink(&piece)?;
                // Nobody takes it when something was wrong with those before, which is told below.
                let taken = pieces.send(piece).is_ok();
                filled?;
                if !taken {
                    return Ok(());
                }
            }
        };
        let decoded = decode_all();
        drop(pieces);
        let inspected = second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let inspector = inspected.map_err(IngestError::Nar)?;
        decoded?;
        inspector.finish().map_err(IngestError::Nar)
    })
}

/// Reads until `piece` is full or there is no more, and shortens it to what there was, also when an
/// error ends it.
fn fill(decoder: &mut impl Read, piece: &mut Vec<u8>) -> Result<(), IngestError> {
    let mut filled = 0;
    let result = loop {
        match piece.get_mut(filled..).map(|room| decoder.read(room)) {
            None | Some(Ok(0)) => break Ok(()),
            Some(Ok(length)) => filled += length,
            Some(Err(error)) => break Err(IngestError::from_decoder(error)),
        }
    };
    piece.truncate(filled);
    result
}

/// Where the stored form is written: an empty file, the quota that it counts against, and who reads along.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    file: &'a File,
    room: Option<&'a Reservation>,
    readers: Option<&'a GrowingFile>,
}

impl<'a> Output<'a> {
    /// Writes as long as the file system has room.
    pub const fn new(file: &'a File) -> Self {
        Self { file, room: None, readers: None }
    }

    /// Writes as long as the quota has room as well.
    pub const fn within(file: &'a File, room: &'a Reservation) -> Self {
        Self { file, room: Some(room), readers: None }
    }

    /// Tells those who read the file meanwhile what was written.
    #[must_use]
    pub const fn read_along(self, readers: &'a GrowingFile) -> Self {
        Self { readers: Some(readers), ..self }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::point("ingest.write")?;
        if let Some(room) = self.room {
            room.grow(bytes.len() as u64)?;
        }
        self.file.write_all(bytes)?;
        if let Some(readers) = self.readers {
            readers.grew(bytes.len() as u64);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
