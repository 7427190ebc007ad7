//! Zstandard: frames and skippable frames in a row (RFC 8878).

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::engine::{Engine, Fault, Progress, Step};
use crate::codec::CodecError;

/// The largest window that is decoded, as a power of two: the library's own default, and what
/// `zstd --ultra -22` needs.
const MAX_WINDOW_LOG: u32 = 27;

pub(super) struct Zstd {
    context: DCtx<'static>,
}

impl Zstd {
    pub(super) fn new() -> Result<Self, Fault> {
        let out_of_memory = || Fault::Refused(CodecError::MemoryLimit { max: 1 << MAX_WINDOW_LOG });
        let mut context = DCtx::try_create().ok_or_else(out_of_memory)?;
        context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(fault)?;
        Ok(Self { context })
    }
}

impl Engine for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        let hint = self.context.decompress_stream(&mut output, &mut input).map_err(fault)?;
        let progress = if hint == 0 { Progress::Ended } else { Progress::Inside };
        Ok(Step { consumed: input.pos(), produced: output.pos(), progress })
    }
}

fn fault(code: usize) -> Fault {
    // libzstd returns its error numbers negated.
    let is = |error: ZSTD_ErrorCode| code == 0usize.wrapping_sub(error as usize);
    if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) {
        Fault::NotThisFormat
    } else if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
        Fault::Refused(CodecError::WindowTooLarge { max_log: MAX_WINDOW_LOG })
    } else if is(ZSTD_ErrorCode::ZSTD_error_memory_allocation) {
        Fault::Refused(CodecError::MemoryLimit { max: 1 << MAX_WINDOW_LOG })
    } else if is(ZSTD_ErrorCode::ZSTD_error_dictionary_wrong) {
        Fault::Refused(CodecError::Unsupported("zstd with a dictionary"))
    } else {
        Fault::Corrupt(zstd_safe::get_error_name(code))
    }
}
