//! The seek table: where each frame begins, in the file and in what it decodes to.

use std::io;
use std::ops::Range;

use super::{MAX_FRAME_SIZE, MAX_FRAMES};
use crate::codec::read_at::ReadAt;

/// Where the frames of a seekable file are.
///
/// One that was read has been checked: the frames fill the file exactly, none is larger than
/// [`MAX_FRAME_SIZE`], and none is empty unless it is the only one. What the frames hold has not
/// been looked at; [`super::Reader`] does that as it decodes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekTable {
    /// The end of each frame, compressed and uncompressed.
    ends: Vec<(u64, u64)>,
}

/// One frame: where it lies in the file, and which bytes it decodes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its place among the frames, from 0.
    pub index: usize,
    /// Its bytes in the file.
    pub compressed: Range<u64>,
    /// The bytes it decodes to.
    pub uncompressed: Range<u64>,
}

/// Why a file has no seek table that can be used.
///
/// [`Self::NoSeekTable`] and [`Self::Unsupported`] may be sound zstd by another hand, which can
/// be read as a stream; after the others the file is damaged.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file could not be read.
    #[error("cannot read the seek table")]
    Io(#[from] io::Error),
    /// It does not end as a seekable file ends.
    #[error("the file does not end with a seek table")]
    NoSeekTable,
    /// A valid table of a kind that we do not write.
    #[error("the seek table's descriptor is {0:#04x}; only 0x00 (no checksums) is read")]
    Unsupported(u8),
    /// No frame, or more than [`MAX_FRAMES`].
    #[error("the seek table declares {0} frames; 1 to {MAX_FRAMES} are allowed")]
    FrameCount(u32),
    /// The table would be longer than the file.
    #[error("a seek table of {frames} frames does not fit into a file of {file_size} bytes")]
    TooLong {
        /// The declared number of frames.
        frames: u32,
        /// The size of the file in bytes.
        file_size: u64,
    },
    /// The skippable frame around the table has another magic number or size than its footer says.
    #[error("the header of the seek table does not agree with its footer")]
    Header,
    /// A frame with a size that is not allowed.
    #[error("frame {index} declares {compressed} bytes that decode to {uncompressed}")]
    FrameSize {
        /// The frame's place.
        index: usize,
        /// Its declared size in the file.
        compressed: u32,
        /// Its declared uncompressed size.
        uncompressed: u32,
    },
    /// The frames and the table do not add up to the file.
    #[error("the frames and the seek table make {declared} bytes, the file has {file_size}")]
    FileSize {
        /// What the table says.
        declared: u64,
        /// The size of the file in bytes.
        file_size: u64,
    },
}

impl SeekTable {
    /// Reads the table at the end of a file of `file_size` bytes.
    ///
    /// Memory is bounded by the size of the file and by [`MAX_FRAMES`]. Files of up to some
    /// thousand frames take a single read.
    pub fn read(source: &(impl ReadAt + ?Sized), file_size: u64) -> Result<Self, TableError> {
        let tail = read_tail(source, file_size, FIRST_READ)?;
        let footer = tail.last_chunk::<FOOTER_SIZE>().ok_or(TableError::NoSeekTable)?;
        let frames = parse_footer(footer)?;
        let table_size = table_size(frames);
        if table_size > file_size {
            return Err(TableError::TooLong { frames, file_size });
        }
        let tail = if table_size > tail.len() as u64 {
            read_tail(source, file_size, table_size)?
        } else {
            tail
        };
        let table = usize::try_from(table_size)
            .ok()
            .and_then(|size| tail.len().checked_sub(size))
            .and_then(|start| tail.get(start..))
            .ok_or(TableError::Header)?;
        Self::parse(table, file_size)
    }

    /// Reads a table whose footer has been checked, from exactly its bytes.
    fn parse(table: &[u8], file_size: u64) -> Result<Self, TableError> {
        let (magic, rest) = split_number(table).ok_or(TableError::Header)?;
        let (content_size, rest) = split_number(rest).ok_or(TableError::Header)?;
        if magic != SKIPPABLE_MAGIC || content_size as usize != rest.len() {
            return Err(TableError::Header);
        }
        let entries = rest.get(..rest.len() - FOOTER_SIZE).ok_or(TableError::Header)?;
        let mut builder = Builder::default();
        let (entries, remainder) = entries.as_chunks::<ENTRY_SIZE>();
        if !remainder.is_empty() {
            return Err(TableError::Header);
        }
        builder.ends.reserve_exact(entries.len());
        let only_one = entries.len() == 1;
        for (index, &[a, b, c, d, e, f, g, h]) in entries.iter().enumerate() {
            let compressed = u32::from_le_bytes([a, b, c, d]);
            let uncompressed = u32::from_le_bytes([e, f, g, h]);
            let empty = compressed == 0 || (uncompressed == 0 && !only_one);
            if empty || uncompressed > MAX_FRAME_SIZE {
                return Err(TableError::FrameSize { index, compressed, uncompressed });
            }
            builder.push(compressed, uncompressed);
        }
        let declared = builder.compressed_size() + table.len() as u64;
        if declared != file_size {
            return Err(TableError::FileSize { declared, file_size });
        }
        Ok(Self { ends: builder.ends })
    }

    /// How many bytes all frames decode to.
    pub fn uncompressed_size(&self) -> u64 {
        self.ends.last().map_or(0, |&(_, uncompressed)| uncompressed)
    }

    /// The number of frames, at least 1.
    pub fn frames(&self) -> usize {
        self.ends.len()
    }

    /// The frame at a place, if there is one.
    pub fn frame(&self, index: usize) -> Option<Frame> {
        let &(compressed_end, uncompressed_end) = self.ends.get(index)?;
        let (compressed_start, uncompressed_start) = index
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or((0, 0));
        Some(Frame {
            index,
            compressed: compressed_start..compressed_end,
            uncompressed: uncompressed_start..uncompressed_end,
        })
    }

    /// The frame that decodes to the byte at `offset`, if the content is that long.
    pub fn frame_at(&self, offset: u64) -> Option<Frame> {
        self.frame(self.ends.partition_point(|&(_, uncompressed_end)| uncompressed_end <= offset))
    }
}

/// A table that grows while a file is written.
#[derive(Default)]
pub(super) struct Builder {
    ends: Vec<(u64, u64)>,
}

impl Builder {
    /// Adds the next frame, by its compressed and its uncompressed size.
    pub(super) fn push(&mut self, compressed: u32, uncompressed: u32) {
        let (compressed_start, uncompressed_start) = self.ends.last().copied().unwrap_or((0, 0));
        self.ends.push((
            compressed_start + u64::from(compressed),
            uncompressed_start + u64::from(uncompressed),
        ));
    }

    /// The number of frames so far.
    pub(super) fn frames(&self) -> usize {
        self.ends.len()
    }

    fn compressed_size(&self) -> u64 {
        self.ends.last().map_or(0, |&(compressed, _)| compressed)
    }

    /// The table as it is written, and as a reader would have it.
    pub(super) fn finish(self) -> Result<(Vec<u8>, SeekTable), TableError> {
        let frames = u32::try_from(self.ends.len())
            .ok()
            .filter(|count| (1..=MAX_FRAMES).contains(count))
            .ok_or(TableError::FrameCount(u32::MAX))?;
        let content_size = self.ends.len() * ENTRY_SIZE + FOOTER_SIZE;
        let mut bytes = Vec::with_capacity(HEADER_SIZE + content_size);
        let content_size =
            u32::try_from(content_size).map_err(|_| TableError::FrameCount(frames))?;
        bytes.extend(SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend(content_size.to_le_bytes());
        let mut previous = (0, 0);
        for (index, &end) in self.ends.iter().enumerate() {
            for size in [end.0 - previous.0, end.1 - previous.1] {
                let size = u32::try_from(size).map_err(|_| TableError::FrameSize {
                    index,
                    compressed: u32::MAX,
                    uncompressed: u32::MAX,
                })?;
                bytes.extend(size.to_le_bytes());
            }
            previous = end;
        }
        bytes.extend(frames.to_le_bytes());
        bytes.push(DESCRIPTOR);
        bytes.extend(FOOTER_MAGIC.to_le_bytes());
        Ok((bytes, SeekTable { ends: self.ends }))
    }
}

/// The magic number of the skippable frame that holds the table.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
/// The last four bytes of a seekable file.
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
/// Bit 7 would say that entries carry checksums; the others are reserved or unused.
const DESCRIPTOR: u8 = 0;
/// Magic number and size of the skippable frame.
const HEADER_SIZE: usize = 8;
/// Compressed and uncompressed size of a frame.
const ENTRY_SIZE: usize = 8;
/// Number of frames, descriptor, magic number.
const FOOTER_SIZE: usize = 9;
/// How much of a file's end is read at first: the tables of nearly all NARs, and little to read.
const FIRST_READ: u64 = 16 << 10;

/// Bytes of the whole skippable frame.
fn table_size(frames: u32) -> u64 {
    HEADER_SIZE as u64 + u64::from(frames) * ENTRY_SIZE as u64 + FOOTER_SIZE as u64
}

fn parse_footer(footer: &[u8; FOOTER_SIZE]) -> Result<u32, TableError> {
    let &[a, b, c, d, descriptor, magic @ ..] = footer;
    if u32::from_le_bytes(magic) != FOOTER_MAGIC {
        return Err(TableError::NoSeekTable);
    }
    if descriptor != DESCRIPTOR {
        return Err(TableError::Unsupported(descriptor));
    }
    let frames = u32::from_le_bytes([a, b, c, d]);
    if !(1..=MAX_FRAMES).contains(&frames) {
        return Err(TableError::FrameCount(frames));
    }
    Ok(frames)
}

/// The last `wanted` bytes of the file, or all of it.
fn read_tail(
    source: &(impl ReadAt + ?Sized),
    file_size: u64,
    wanted: u64,
) -> Result<Vec<u8>, TableError> {
    let size = wanted.min(file_size);
    let mut tail = vec![0; usize::try_from(size).map_err(|_| TableError::Header)?];
    source.read_exact_at(&mut tail, file_size - size)?;
    Ok(tail)
}

fn split_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}
