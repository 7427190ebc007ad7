//! xz: streams in a row, with padding between them (the .xz file format, 1.2.1).
//!
//! Single-threaded and a fresh decoder for each stream: liblzma's faults of the last years were in
//! the threaded decoder and in decoders used again (CVE-2025-31115, GHSA-5qpq-xqfv-j9pg).

use liblzma::stream::{Action, Error, Status, Stream, TELL_UNSUPPORTED_CHECK};

use super::engine::{Engine, Fault, Progress, Step};
use crate::codec::CodecError;

/// The first byte of a stream.
const FIRST_BYTE: u8 = 0xfd;

pub(super) struct Xz {
    /// The most memory that a decoder may take, in bytes.
    max_memory: u64,
    place: Place,
}

enum Place {
    Inside(Stream),
    /// After a stream, and so many bytes of padding.
    Padding(u64),
}

impl Xz {
    pub(super) fn new(max_memory: u64) -> Result<Self, Fault> {
        // Without the flag a check that this build does not know would be skipped in silence.
        let stream = Stream::new_stream_decoder(max_memory, TELL_UNSUPPORTED_CHECK)
            .map_err(|error| fault(error, max_memory))?;
        Ok(Self { max_memory, place: Place::Inside(stream) })
    }
}

impl Engine for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        match &mut self.place {
            Place::Inside(stream) => {
                let before = (stream.total_in(), stream.total_out());
                let status = stream
                    .process(input, output, Action::Run)
                    .map_err(|error| fault(error, self.max_memory))?;
                let consumed = difference(stream.total_in(), before.0);
                let produced = difference(stream.total_out(), before.1);
                let progress = if status == Status::StreamEnd {
                    self.place = Place::Padding(0);
                    Progress::Ended
                } else {
                    Progress::Inside
                };
                Ok(Step { consumed, produced, progress })
            }
            Place::Padding(padding) => {
                let zeros = input.iter().take_while(|&&byte| byte == 0).count();
                *padding += zeros as u64;
                // Padding comes in fours.
                let is_whole = padding.is_multiple_of(4);
                if let Some(&first) = input.get(zeros) {
                    // liblzma would wait for the twelve bytes of a header before it says so.
                    if first != FIRST_BYTE {
                        return Err(Fault::NotThisFormat);
                    }
                    if !is_whole {
                        return Err(Fault::Corrupt("padding is not a multiple of 4 bytes"));
                    }
                    *self = Self::new(self.max_memory)?;
                }
                let progress = match self.place {
                    Place::Padding(_) if is_whole => Progress::Between,
                    _ => Progress::Inside,
                };
                Ok(Step { consumed: zeros, produced: 0, progress })
            }
        }
    }
}

fn fault(error: Error, max: u64) -> Fault {
    match error {
        Error::Format => Fault::NotThisFormat,
        Error::MemLimit | Error::Mem => Fault::Refused(CodecError::MemoryLimit { max }),
        Error::Options => Fault::Refused(CodecError::Unsupported("an xz filter or option")),
        Error::UnsupportedCheck => Fault::Refused(CodecError::Unsupported("an xz check")),
        Error::Data | Error::Program | Error::NoCheck => Fault::Corrupt("invalid data"),
    }
}

/// How much a count has grown, by less than a slice is long.
fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}
