//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells a file from what was there before: which it is, how long, and when it was last changed.
/// Certificates are exchanged by renaming, by links (Kubernetes, NixOS) and by writing over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i128; 4]>);

impl Stamp {
    /// Of the file that is there now; links are followed.
    pub fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|found| {
            let changed =
                i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
            [found.dev().into(), found.ino().into(), found.len().into(), changed]
        }))
    }
}
