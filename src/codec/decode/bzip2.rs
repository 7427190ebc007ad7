//! bzip2: streams in a row.

use bzip2::{Decompress, Error, Status};

use super::engine::{Engine, Fault, Progress, Step};
use crate::codec::CodecError;

pub(super) struct Bzip2 {
    stream: Decompress,
    ended: bool,
}

impl Bzip2 {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(false), ended: false }
    }
}

impl Engine for Bzip2 {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        if self.ended {
            *self = Self::new();
        }
        let before = (self.stream.total_in(), self.stream.total_out());
        let progress = match self.stream.decompress(input, output).map_err(fault)? {
            Status::StreamEnd => {
                self.ended = true;
                Progress::Ended
            }
            Status::MemNeeded => {
                return Err(Fault::Refused(CodecError::MemoryLimit { max: MEMORY }));
            }
            Status::Ok | Status::FlushOk | Status::RunOk | Status::FinishOk => Progress::Inside,
        };
        let consumed = difference(self.stream.total_in(), before.0);
        let produced = difference(self.stream.total_out(), before.1);
        Ok(Step { consumed, produced, progress })
    }
}

/// What a decoder takes at the largest block size, in bytes (bzip2's manual: 100k + 4 * 900k).
const MEMORY: u64 = 3_700_000;

fn fault(error: Error) -> Fault {
    match error {
        Error::DataMagic => Fault::NotThisFormat,
        Error::Data => Fault::Corrupt("invalid data"),
        Error::Sequence | Error::Param => Fault::Corrupt("the decoder refused to go on"),
    }
}

/// How much a count has grown, by less than a slice is long.
fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}
