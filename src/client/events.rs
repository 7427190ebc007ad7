//! What a push tells whoever watches it.

use std::time::Duration;

use super::remote::RemoteError;
use crate::nix::path_info::PathInfo;

/// Somebody who watches a push; called from several threads.
pub trait Events: Sync {
    /// So much is to be sent, counted in bytes of uncompressed NARs.
    fn begin(&self, paths: usize, nar_bytes: u64) {
        let _ = (paths, nar_bytes);
    }

    /// Bytes of a NAR were dealt with; fewer than none where an upload begins anew.
    fn moved(&self, nar_bytes: i64) {
        let _ = nar_bytes;
    }

    /// Bytes went to the server.
    fn sent(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The NAR of a path is on the server.
    fn uploaded(&self, info: &PathInfo) {
        let _ = info;
    }

    /// The NAR of a path could not be sent.
    fn failed(&self, info: &PathInfo, why: &str) {
        let _ = (info, why);
    }

    /// The server cannot do it now; it is asked again after `wait`.
    fn waiting(&self, error: &RemoteError, wait: Duration) {
        let _ = (error, wait);
    }

    /// Something that somebody should know, in one line.
    fn note(&self, line: &str) {
        let _ = line;
    }
}
