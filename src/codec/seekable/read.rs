//! Reading the seekable form from any position.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use zstd::zstd_safe::{self, DCtx};

use super::table::{Frame, SeekTable, TableError};
use crate::codec::read_at::ReadAt;

/// Reads the content of a seekable file from any position, decoding only the frames it touches.
///
/// Each frame must hold exactly what the table says, and carries a checksum, so damaged bytes are
/// an error and never an answer. Memory: one compressed and one uncompressed frame, at most
/// about 16 MiB together, and one decoder.
pub struct Reader<S> {
    source: S,
    table: Arc<SeekTable>,
    decoder: FrameDecoder,
    /// The frame that was decoded last, for the next read near it.
    decoded: Vec<u8>,
    decoded_index: Option<usize>,
}

/// Why content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read, or has become shorter than its table.
    #[error("cannot read frame {index}")]
    Io {
        /// The frame's place.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no usable table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A range that begins behind its end, or ends behind the content.
    #[error("bytes {start} to {end} of a content of {size}")]
    OutOfRange {
        /// The first byte wanted.
        start: u64,
        /// One after the last byte wanted.
        end: u64,
        /// How many there are.
        size: u64,
    },
    /// The frame is not one zstd frame of the sizes that the table says.
    #[error("frame {index} is not the frame that the seek table describes")]
    FrameMismatch {
        /// The frame's place.
        index: usize,
    },
    /// The frame does not decode, or its checksum is wrong.
    #[error("frame {index} is damaged: {reason}")]
    FrameDamaged {
        /// The frame's place.
        index: usize,
        /// What zstd said.
        reason: &'static str,
    },
    /// No memory for a decoder.
    #[error("no memory for a zstd decoder")]
    OutOfMemory,
}

impl<S: ReadAt> Reader<S> {
    /// Reads the table of a file of `file_size` bytes and prepares to read its content.
    pub fn open(source: S, file_size: u64) -> Result<Self, ReadError> {
        let table = SeekTable::read(&source, file_size)?;
        Self::new(source, Arc::new(table))
    }

    /// Prepares to read with a table that is known already.
    pub fn new(source: S, table: Arc<SeekTable>) -> Result<Self, ReadError> {
        let decoder = FrameDecoder::new()?;
        Ok(Self { source, table, decoder, decoded: Vec::new(), decoded_index: None })
    }

    /// The seek table.
    pub fn table(&self) -> &Arc<SeekTable> {
        &self.table
    }

    /// How many bytes the content has, by the table.
    pub fn size(&self) -> u64 {
        self.table.uncompressed_size()
    }

    /// Fills `buffer` with the content at `offset`, as far as there is any.
    ///
    /// Returns how many bytes were written; fewer than `buffer` holds only at the content's end.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < buffer.len()
            && let Some(frame) = self.table.frame_at(offset + filled as u64)
        {
            self.decode(&frame)?;
            let skip = position_in(&frame, offset + filled as u64);
            let bytes = self.decoded.get(skip..).unwrap_or_default();
            let room = &mut buffer[filled..];
            let taken = bytes.len().min(room.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            filled += taken;
        }
        Ok(filled)
    }

    /// The bytes of `range`, one frame's worth at a time.
    ///
    /// The range must lie within the content; use [`Self::size`] for its end.
    pub fn into_chunks(self, range: Range<u64>) -> Result<Chunks<S>, ReadError> {
        let size = self.size();
        if range.start > range.end || range.end > size {
            return Err(ReadError::OutOfRange { start: range.start, end: range.end, size });
        }
        Ok(Chunks { reader: self, range })
    }

    /// Makes `decoded` the content of `frame`.
    fn decode(&mut self, frame: &Frame) -> Result<(), ReadError> {
        if self.decoded_index != Some(frame.index) {
            self.decoded_index = None;
            self.decoder.decode(&self.source, frame, &mut self.decoded)?;
            self.decoded_index = Some(frame.index);
        }
        Ok(())
    }
}

/// An iterator over the bytes of a range, in pieces of at most one frame.
///
/// After an error it ends: what came before is sound, but the range is not complete.
pub struct Chunks<S> {
    reader: Reader<S>,
    range: Range<u64>,
}

impl<S: ReadAt> Chunks<S> {
    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Gives back the reader, for another range.
    pub fn into_reader(self) -> Reader<S> {
        self.reader
    }

    fn next_chunk(&mut self, frame: &Frame) -> Result<Vec<u8>, ReadError> {
        self.reader.decode(frame)?;
        let start = position_in(frame, self.range.start);
        let end = position_in(frame, self.range.end.min(frame.uncompressed.end));
        self.range.start = self.range.end.min(frame.uncompressed.end);
        if start == 0 && end == self.reader.decoded.len() {
            // A whole frame is handed over as it is; it will not be asked for again.
            self.reader.decoded_index = None;
            return Ok(std::mem::take(&mut self.reader.decoded));
        }
        Ok(self.reader.decoded.get(start..end).unwrap_or_default().to_vec())
    }
}

impl<S: ReadAt> Iterator for Chunks<S> {
    type Item = Result<Vec<u8>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        let frame = self.reader.table.frame_at(self.range.start)?;
        let chunk = self.next_chunk(&frame);
        if chunk.is_err() {
            self.range.start = self.range.end;
        }
        Some(chunk)
    }
}

/// One decoder and the compressed bytes it works on, used for frame after frame.
struct FrameDecoder {
    context: DCtx<'static>,
    compressed: Vec<u8>,
}

impl FrameDecoder {
    fn new() -> Result<Self, ReadError> {
        let context = DCtx::try_create().ok_or(ReadError::OutOfMemory)?;
        Ok(Self { context, compressed: Vec::new() })
    }

    /// Fills `content` with what `frame` decodes to.
    fn decode(
        &mut self,
        source: &(impl ReadAt + ?Sized),
        frame: &Frame,
        content: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let index = frame.index;
        let mismatch = ReadError::FrameMismatch { index };
        let Some(compressed_size) = frame_length(&frame.compressed) else { return Err(mismatch) };
        let Some(size) = frame_length(&frame.uncompressed) else { return Err(mismatch) };
        // Not more than the most that zstd makes of so many bytes: the buffer is as large as a
        // frame, even if the table says that this one takes the whole file.
        if compressed_size > zstd_safe::compress_bound(size) {
            return Err(mismatch);
        }
        self.compressed.resize(compressed_size, 0);
        source
            .read_exact_at(&mut self.compressed, frame.compressed.start)
            .map_err(|source| ReadError::Io { index, source })?;

        let is_one_frame =
            zstd_safe::find_frame_compressed_size(&self.compressed) == Ok(compressed_size);
        let declared = zstd_safe::get_frame_content_size(&self.compressed).ok().flatten();
        if !is_one_frame || declared != Some(size as u64) {
            return Err(mismatch);
        }
        content.clear();
        content.reserve_exact(size);
        match self.context.decompress(content, &self.compressed) {
            Ok(decoded) if decoded == size && content.len() == size => Ok(()),
            Ok(_) => Err(mismatch),
            Err(code) => {
                content.clear();
                Err(ReadError::FrameDamaged { index, reason: zstd_safe::get_error_name(code) })
            }
        }
    }
}

fn frame_length(range: &Range<u64>) -> Option<usize> {
    usize::try_from(range.end - range.start).ok()
}

/// Where an offset lies in a frame. It is inside the frame, so it fits.
fn position_in(frame: &Frame, offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(frame.uncompressed.start)).unwrap_or(usize::MAX)
}
