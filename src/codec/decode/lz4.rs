//! LZ4 frames in a row (`doc/lz4_Frame_format.md` in lz4/lz4, 1.6.4), blocks by lz4_flex.
//!
//! lz4_flex has a reader of frames too; it takes input that ends between two blocks for the end.

use lz4_flex::block::decompress_into_with_dict;

use super::engine::{Engine, Fault, Field, Progress, Step};
use super::xxh32::Xxh32;
use crate::codec::CodecError;

pub(super) struct Lz4 {
    part: Part,
    field: Field,
    header: Header,
    /// The decoded block, and how much of it was given out.
    block: Vec<u8>,
    given: usize,
    /// What came out last, for blocks that refer to it: up to [`HISTORY`].
    history: Vec<u8>,
    content_size: u64,
    content_hash: Xxh32,
}

/// What comes next in a frame.
#[derive(Clone, Copy)]
enum Part {
    Magic,
    SkipSize,
    Skip(u32),
    Flags,
    Descriptor([u8; 2]),
    BlockSize,
    Block { size: usize, compressed: bool },
    Output,
    ContentHash,
}

/// What a frame's header says.
#[derive(Clone, Copy, Default)]
struct Header {
    blocks_are_linked: bool,
    has_block_hash: bool,
    has_content_hash: bool,
    content_size: Option<u64>,
    /// The largest decoded block in bytes: 64 KiB, 256 KiB, 1 MiB or 4 MiB.
    max_block: usize,
}

const MAGIC: u32 = 0x184D_2204;
const SKIPPABLE_MAGIC: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
/// How far back a block may refer.
const HISTORY: usize = 64 << 10;
/// The bit of a block's size that says that the block is not compressed.
const IS_PLAIN: u32 = 1 << 31;
/// Bytes of a hash.
const HASH_SIZE: usize = 4;

impl Lz4 {
    pub(super) fn new() -> Self {
        Self {
            part: Part::Magic,
            field: Field::default(),
            header: Header::default(),
            block: Vec::new(),
            given: 0,
            history: Vec::new(),
            content_size: 0,
            content_hash: Xxh32::new(),
        }
    }

    /// Reads the next part from the front of `input`, as far as it is there.
    fn next(&mut self, input: &mut &[u8]) -> Result<Progress, Fault> {
        match self.part {
            Part::Magic => {
                if let Some(magic) = self.number(input) {
                    self.part = match magic {
                        MAGIC => Part::Flags,
                        magic if SKIPPABLE_MAGIC.contains(&magic) => Part::SkipSize,
                        _ => return Err(Fault::NotThisFormat),
                    };
                }
            }
            Part::SkipSize => {
                if let Some(size) = self.number(input) {
                    self.part = Part::Skip(size);
                }
            }
            Part::Skip(left) => {
                let skipped = input.len().min(left as usize);
                *input = &input[skipped..];
                let left = left - u32::try_from(skipped).unwrap_or(left);
                self.part = Part::Skip(left);
                if left == 0 {
                    self.part = Part::Magic;
                    return Ok(Progress::Ended);
                }
            }
            Part::Flags => {
                if let Some(flags) = self.field.take::<2>(input) {
                    self.part = Part::Descriptor(flags);
                }
            }
            Part::Descriptor(flags) => self.descriptor(flags, input)?,
            Part::BlockSize => return self.block_size(input),
            Part::Block { size, compressed } => self.block(size, compressed, input)?,
            Part::Output => {}
            Part::ContentHash => {
                if let Some(hash) = self.number(input) {
                    if hash != self.content_hash.finish() {
                        return Err(Fault::Corrupt("the content's checksum is wrong"));
                    }
                    return self.end_frame();
                }
            }
        }
        Ok(Progress::Inside)
    }

    fn number(&mut self, input: &mut &[u8]) -> Option<u32> {
        self.field.take(input).map(u32::from_le_bytes)
    }

    /// Reads what follows the two bytes of flags: content size, dictionary, header checksum.
    fn descriptor(&mut self, flags: [u8; 2], input: &mut &[u8]) -> Result<(), Fault> {
        let [flag, block_flag] = flags;
        let has = |bit: u8| flag & (1 << bit) != 0;
        if flag >> 6 != 1 || has(1) || block_flag & 0b1000_1111 != 0 {
            return Err(Fault::Corrupt("a version or flag that LZ4 frames do not have"));
        }
        if has(0) {
            return Err(Fault::Refused(CodecError::Unsupported("LZ4 with a dictionary")));
        }
        let max_block = match block_flag >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return Err(Fault::Corrupt("a block size that LZ4 frames do not have")),
        };
        let size_length = if has(3) { 8 } else { 0 };
        let Some(rest) = self.field.lend(input, size_length + 1) else { return Ok(()) };
        let content_size =
            has(3).then(|| rest.first_chunk().copied().map(u64::from_le_bytes)).flatten();
        let hashed = [&flags, &rest[..size_length]].concat();
        let [_, expected, ..] = Xxh32::of(&hashed).to_le_bytes();
        if rest.last() != Some(&expected) {
            return Err(Fault::Corrupt("the header's checksum is wrong"));
        }
        self.field.clear();
        self.header = Header {
            blocks_are_linked: !has(5),
            has_block_hash: has(4),
            has_content_hash: has(2),
            content_size,
            max_block,
        };
        self.part = Part::BlockSize;
        Ok(())
    }

    fn block_size(&mut self, input: &mut &[u8]) -> Result<Progress, Fault> {
        let Some(number) = self.number(input) else { return Ok(Progress::Inside) };
        if number == 0 {
            if self.header.has_content_hash {
                self.part = Part::ContentHash;
                return Ok(Progress::Inside);
            }
            return self.end_frame();
        }
        let size = (number & !IS_PLAIN) as usize;
        if size > self.header.max_block {
            return Err(Fault::Corrupt("a block is larger than the frame allows"));
        }
        self.part = Part::Block { size, compressed: number & IS_PLAIN == 0 };
        Ok(Progress::Inside)
    }

    /// Collects a block with its checksum and decodes it.
    fn block(&mut self, size: usize, compressed: bool, input: &mut &[u8]) -> Result<(), Fault> {
        let hash_size = if self.header.has_block_hash { HASH_SIZE } else { 0 };
        let Some(bytes) = self.field.lend(input, size + hash_size) else { return Ok(()) };
        let (bytes, hash) = bytes.split_at(size);
        if let Ok(hash) = hash.try_into()
            && u32::from_le_bytes(hash) != Xxh32::of(bytes)
        {
            return Err(Fault::Corrupt("a block's checksum is wrong"));
        }
        if compressed {
            self.block.resize(self.header.max_block, 0);
            let decoded = decompress_into_with_dict(bytes, &mut self.block, &self.history)
                .map_err(|_| Fault::Corrupt("invalid block"))?;
            self.block.truncate(decoded);
        } else {
            self.block.clear();
            self.block.extend_from_slice(bytes);
        }
        self.field.clear();
        if self.header.blocks_are_linked {
            let old = self.history.len().min(HISTORY.saturating_sub(self.block.len()));
            self.history.drain(..self.history.len() - old);
            let new = self.block.len().min(HISTORY);
            self.history.extend_from_slice(&self.block[self.block.len() - new..]);
        }
        if self.header.has_content_hash {
            self.content_hash.update(&self.block);
        }
        self.content_size += self.block.len() as u64;
        self.given = 0;
        self.part = if self.block.is_empty() { Part::BlockSize } else { Part::Output };
        Ok(())
    }

    fn end_frame(&mut self) -> Result<Progress, Fault> {
        if self.header.content_size.is_some_and(|size| size != self.content_size) {
            return Err(Fault::Corrupt("the content has another size than declared"));
        }
        self.part = Part::Magic;
        self.history.clear();
        self.content_size = 0;
        self.content_hash = Xxh32::new();
        Ok(Progress::Ended)
    }
}

impl Engine for Lz4 {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        if matches!(self.part, Part::Output) {
            let left = &self.block[self.given..];
            let produced = left.len().min(output.len());
            output[..produced].copy_from_slice(&left[..produced]);
            self.given += produced;
            if self.given == self.block.len() {
                self.part = Part::BlockSize;
            }
            return Ok(Step { consumed: 0, produced, progress: Progress::Inside });
        }
        let mut rest = input;
        let progress = self.next(&mut rest)?;
        Ok(Step { consumed: input.len() - rest.len(), produced: 0, progress })
    }
}
