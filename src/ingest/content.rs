use super::publish::Ingest;
use super::refusal::PushError;
use crate::nix::nar_url::NarFileName;
use crate::nix::path_info::PathInfo;

pub(super) fn check_deriver(_: &Ingest, _: &PathInfo) -> Result<(), PushError> {
    Ok(())
}
pub(super) fn check_content_address(
    _: &Ingest,
    _: &PathInfo,
    _: NarFileName,
) -> Result<Option<bool>, PushError> {
    Ok(None)
}
