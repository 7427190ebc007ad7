//! Chunks of what is stored, made by blocking.

use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use rustix::io::ReadWriteFlags;

use super::buffer::BufferPool;
use super::verified::Verified;
use super::{Expected, Stored, StoredFile, TransferError};

/// Chunks of an answer, made by blocking; after an error nothing follows.
pub type BoxedChunks = Box<dyn Iterator<Item = Result<Bytes, TransferError>> + Send>;

/// Bytes of one chunk. When the HTTP stack was chosen, 256 KiB was measured to cost a seventh of the
/// CPU of the usual 4 KiB; 64 downloads at once stay within 32 MiB with one chunk read ahead.
pub const CHUNK: usize = 256 * 1024;

impl Stored {
    /// The bytes of `part` of a NAR of `size` bytes. The whole of it is hashed on its way out.
    pub fn into_chunks(self, part: Range<u64>, size: u64) -> Result<BoxedChunks, TransferError> {
        let length = part.end - part.start;
        let whole = length == size;
        match self {
            Self::File(file) => Ok(Box::new(FileChunks::new(file, part))),
            Self::Seekable(reader, expected) => {
                let chunks = reader
                    .into_chunks(part)
                    .map_err(|error| read_error(&expected, &error))?
                    .map(|chunk| chunk.map(Bytes::from));
                Ok(checked(chunks, expected, whole))
            }
            Self::Decoded(compressed, expected) => {
                let reader =
                    compressed.into_reader(size).map_err(|error| read_error(&expected, &error))?;
                let chunks = ReaderChunks {
                    reader: Some(reader),
                    skip: part.start,
                    left: length,
                    to_end: whole,
                };
                Ok(checked(chunks, expected, whole))
            }
        }
    }
}

fn checked<E: std::fmt::Display + 'static>(
    chunks: impl Iterator<Item = Result<Bytes, E>> + Send + 'static,
    expected: Expected,
    whole: bool,
) -> BoxedChunks {
    if whole {
        return Box::new(Verified::new(chunks, expected));
    }
    Box::new(chunks.map(move |chunk| chunk.map_err(|error| read_error(&expected, &error))))
}

fn read_error(expected: &Expected, error: &impl std::fmt::Display) -> TransferError {
    TransferError::Read { path: expected.name.clone(), why: error.to_string() }
}

/// The bytes of a part of a file.
pub struct FileChunks {
    file: StoredFile,
    range: Range<u64>,
}

impl FileChunks {
    /// `range` lies within the file.
    pub const fn new(file: StoredFile, range: Range<u64>) -> Self {
        Self { file, range }
    }
}

impl Iterator for FileChunks {
    type Item = Result<Bytes, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.range.end - self.range.start;
        if left == 0 {
            return None;
        }
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let chunk = self.file.read_part(self.range.start, wanted);
        match &chunk {
            Ok(chunk) => self.range.start += chunk.len() as u64,
            Err(_) => self.range.start = self.range.end,
        }
        Some(chunk.map_err(|error| TransferError::Read {
            path: "a stored NAR".into(),
            why: error.to_string(),
        }))
    }
}

/// Buffers of [`CHUNK`] bytes for all answers. One for the process, as its allocator is: what is
/// sent belongs to no cache any more.
static BUFFERS: LazyLock<Arc<BufferPool>> = LazyLock::new(|| BufferPool::new(CHUNK, IDLE_BUFFERS));
/// Idle buffers that are kept: 8 MiB.
const IDLE_BUFFERS: usize = 32;
/// Below this a fresh allocation is as cheap as a buffer, and a buffer would be mostly empty while
/// a slow client holds it.
const SMALL: usize = 16 * 1024;

/// Reads exactly `size` bytes at `offset`, at most [`CHUNK`]; a file that ends before is an error.
pub fn read_part(file: impl AsFd, offset: u64, size: usize) -> io::Result<Bytes> {
    fill(size, |rest, filled| Ok(rustix::io::pread(&file, rest, offset + filled as u64)?))
}

/// Reads `size` bytes at `offset`, at most [`CHUNK`], if that needs no disk; `None` where it would, or
/// where the file system cannot tell, or where the file has fewer.
pub fn read_if_cached(file: impl AsFd, offset: u64, size: usize) -> Option<Bytes> {
    let read = |rest: &mut [u8], filled: usize| {
        let mut parts = [IoSliceMut::new(rest)];
        let at = offset + filled as u64;
        Ok(rustix::io::preadv2(&file, &mut parts, at, ReadWriteFlags::NOWAIT)?)
    };
    fill(size, read).ok()
}

/// Fills a buffer of `size` bytes by reads that are told how many bytes are there already.
fn fill(size: usize, read: impl Fn(&mut [u8], usize) -> io::Result<usize>) -> io::Result<Bytes> {
    let complete = |rest: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while filled < rest.len() {
            match read(&mut rest[filled..], filled)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    };
    if size <= SMALL {
        let mut bytes = vec![0; size];
        complete(&mut bytes)?;
        return Ok(Bytes::from(bytes));
    }
    let mut buffer = BUFFERS.take();
    let rest = buffer.rest().get_mut(..size).ok_or(io::ErrorKind::InvalidInput)?;
    complete(rest)?;
    buffer.advance(size);
    Ok(Bytes::from_owner(buffer))
}

/// The bytes of a reader, in chunks, after some that are passed over.
struct ReaderChunks<R> {
    reader: Option<R>,
    skip: u64,
    left: u64,
    /// Whether nothing may follow.
    to_end: bool,
}

impl<R: Read> Iterator for ReaderChunks<R> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.read();
        if !matches!(result, Ok(Some(_))) {
            self.reader = None;
        }
        result.transpose()
    }
}

impl<R: Read> ReaderChunks<R> {
    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        if self.skip > 0 {
            let skipped = io::copy(&mut reader.take(self.skip), &mut io::sink())?;
            self.skip -= skipped;
        }
        if self.left == 0 && !self.to_end {
            return Ok(None);
        }
        if self.left == 0 {
            // The end must be the end: a decoder reports trailing bytes only when asked for more.
            return match reader.read(&mut [0])? {
                0 => Ok(None),
                _ => Err(io::Error::other("more bytes than NarSize")),
            };
        }
        let wanted = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = Vec::with_capacity(wanted);
        let count = io::copy(&mut reader.take(wanted as u64), &mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(Some(Bytes::from(buffer)))
    }
}
