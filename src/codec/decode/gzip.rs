//! gzip: members in a row (RFC 1952).

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::engine::{Engine, Fault, Field, Progress, Step};

pub(super) struct Gzip {
    part: Part,
    field: Field,
    /// Flags of the header: which optional parts it has.
    flags: u8,
    /// Of the header's bytes.
    header_crc: Crc,
    inflate: Decompress,
    /// Of what came out.
    content_crc: Crc,
}

/// What comes next in a member. The optional parts follow each other in this order.
#[derive(Clone, Copy)]
enum Part {
    Magic(u8),
    Fixed,
    ExtraLength,
    Extra(usize),
    Name,
    Comment,
    HeaderCrc,
    Body,
    Trailer,
}

/// The first two bytes of a member.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The only method there is: deflate.
const DEFLATE: u8 = 8;
const HAS_HEADER_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            part: Part::Magic(0),
            field: Field::default(),
            flags: 0,
            header_crc: Crc::new(),
            inflate: Decompress::new(false),
            content_crc: Crc::new(),
        }
    }

    /// Reads one part of the header from the front of `input`, as far as it is there.
    fn header(&mut self, input: &mut &[u8]) -> Result<(), Fault> {
        match self.part {
            Part::Magic(position) => {
                if let Some((&byte, rest)) = input.split_first() {
                    if byte != MAGIC[usize::from(position)] {
                        return Err(Fault::NotThisFormat);
                    }
                    *input = rest;
                    self.part = if position == 0 { Part::Magic(1) } else { Part::Fixed };
                }
            }
            Part::Fixed => {
                // Method, flags, time (4), extra flags, operating system.
                if let Some([method, flags, ..]) = self.field.take::<8>(input) {
                    if method != DEFLATE || flags & RESERVED != 0 {
                        return Err(Fault::Corrupt("a method or flag that gzip does not have"));
                    }
                    self.flags = flags;
                    self.part = self.part_or_next(Part::ExtraLength);
                }
            }
            Part::ExtraLength => {
                if let Some(length) = self.field.take::<2>(input) {
                    self.part = Part::Extra(usize::from(u16::from_le_bytes(length)));
                }
            }
            Part::Extra(left) => {
                let skipped = left.min(input.len());
                *input = &input[skipped..];
                self.part = match left - skipped {
                    0 => self.part_or_next(Part::Name),
                    left => Part::Extra(left),
                };
            }
            Part::Name if skip_text(input) => self.part = self.part_or_next(Part::Comment),
            Part::Comment if skip_text(input) => self.part = self.part_or_next(Part::HeaderCrc),
            // The rest of the text is still to come; or no part of the header.
            Part::Name | Part::Comment => {}
            Part::HeaderCrc | Part::Body | Part::Trailer => {}
        }
        Ok(())
    }

    /// The given part of the header, or the first after it that this member has.
    fn part_or_next(&self, part: Part) -> Part {
        let has = |flag| self.flags & flag != 0;
        match part {
            Part::ExtraLength if !has(HAS_EXTRA) => self.part_or_next(Part::Name),
            Part::Name if !has(HAS_NAME) => self.part_or_next(Part::Comment),
            Part::Comment if !has(HAS_COMMENT) => self.part_or_next(Part::HeaderCrc),
            Part::HeaderCrc if !has(HAS_HEADER_CRC) => Part::Body,
            part => part,
        }
    }

    fn body(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Fault> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, output, FlushDecompress::None)
            .map_err(|_| Fault::Corrupt("invalid deflate data"))?;
        let difference = |after: u64, before| usize::try_from(after - before).unwrap_or(usize::MAX);
        let consumed = difference(self.inflate.total_in(), before.0);
        let produced = difference(self.inflate.total_out(), before.1);
        *input = &input[consumed..];
        self.content_crc.update(&output[..produced]);
        if status == Status::StreamEnd {
            self.part = Part::Trailer;
        }
        Ok(produced)
    }

    /// Compares the trailer; true when it was all there.
    fn trailer(&mut self, input: &mut &[u8]) -> Result<bool, Fault> {
        let Some([a, b, c, d, size @ ..]) = self.field.take::<8>(input) else { return Ok(false) };
        if u32::from_le_bytes([a, b, c, d]) != self.content_crc.sum() {
            return Err(Fault::Corrupt("the checksum is wrong"));
        }
        // The size modulo 2^32, in the format and in flate2 alike.
        if u32::from_le_bytes(size) != self.content_crc.amount() {
            return Err(Fault::Corrupt("the size is wrong"));
        }
        Ok(true)
    }
}

impl Engine for Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        let mut rest = input;
        let mut produced = 0;
        let mut progress = Progress::Inside;
        match self.part {
            Part::Body => produced = self.body(&mut rest, output)?,
            Part::Trailer => {
                if self.trailer(&mut rest)? {
                    *self = Self::new();
                    progress = Progress::Ended;
                }
            }
            Part::HeaderCrc => {
                if let Some(crc) = self.field.take::<2>(&mut rest) {
                    // The low half of the CRC of all header bytes before it.
                    let [low, high, ..] = self.header_crc.sum().to_le_bytes();
                    if crc != [low, high] {
                        return Err(Fault::Corrupt("the header's checksum is wrong"));
                    }
                    self.part = Part::Body;
                }
            }
            _ => {
                self.header(&mut rest)?;
                self.header_crc.update(&input[..input.len() - rest.len()]);
            }
        }
        Ok(Step { consumed: input.len() - rest.len(), produced, progress })
    }
}

/// Skips a text that ends with a zero byte; true when the zero was there.
fn skip_text(input: &mut &[u8]) -> bool {
    let end = input.iter().position(|&byte| byte == 0);
    *input = &input[end.map_or(input.len(), |end| end + 1)..];
    end.is_some()
}
