//! Zstandard: frames and skippable frames in a row (RFC 8878).

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::engine::{Engine, Fault, Progress, Step};
use crate::codec::CodecError;

/// The window logs that the library decodes at all.
const WINDOW_LOGS: std::ops::RangeInclusive<u32> = 10..=31;

pub(super) struct Zstd {
    context: DCtx<'static>,
    /// The largest window that is decoded, as a power of two.
    max_window_log: u32,
}

impl Zstd {
    pub(super) fn new(max_memory: u64) -> Result<Self, Fault> {
        let max_window_log =
            max_memory.max(1).ilog2().clamp(*WINDOW_LOGS.start(), *WINDOW_LOGS.end());
        let out_of_memory = || Fault::Refused(CodecError::MemoryLimit { max: 1 << max_window_log });
        let mut context = DCtx::try_create().ok_or_else(out_of_memory)?;
        context
            .set_parameter(DParameter::WindowLogMax(max_window_log))
            .map_err(|code| fault(code, max_window_log))?;
        Ok(Self { context, max_window_log })
    }
}

impl Engine for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        let hint = self
            .context
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| fault(code, self.max_window_log))?;
        let progress = if hint == 0 { Progress::Ended } else { Progress::Inside };
        Ok(Step { consumed: input.pos(), produced: output.pos(), progress })
    }
}

fn fault(code: usize, max_log: u32) -> Fault {
    // libzstd returns its error numbers negated.
    let is = |error: ZSTD_ErrorCode| code == 0usize.wrapping_sub(error as usize);
    if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) {
        Fault::NotThisFormat
    } else if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
        Fault::Refused(CodecError::WindowTooLarge { max_log })
    } else if is(ZSTD_ErrorCode::ZSTD_error_memory_allocation) {
        Fault::Refused(CodecError::MemoryLimit { max: 1 << max_log })
    } else if is(ZSTD_ErrorCode::ZSTD_error_dictionary_wrong) {
        Fault::Refused(CodecError::Unsupported("zstd with a dictionary"))
    } else {
        Fault::Corrupt(zstd_safe::get_error_name(code))
    }
}
