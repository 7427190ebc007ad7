//! Who pushed what, for `snowbank why`.
//!
//! A push that cannot be recorded is a push all the same: the log has it then.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Ingest, PushError, Pusher};
use crate::index::state::{ConflictRecord, PushRecord, StateDb};
use crate::nix::path_info::PathInfo;

impl Ingest {
    /// Notes in `state` who pushes what from now on.
    #[must_use]
    pub fn with_records(mut self, state: Option<Arc<StateDb>>) -> Self {
        self.state = state;
        self
    }

    /// Notes that these were published.
    pub(super) fn record_pushes<'a>(
        &self,
        paths: impl Iterator<Item = &'a PathInfo>,
        pusher: &Pusher,
    ) {
        let Some(state) = &self.state else { return };
        let at = now();
        let record = |info: &PathInfo| PushRecord {
            cache: self.cache.name.clone(),
            path: info.path.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            pusher: pusher.name.clone(),
            token: pusher.token.clone(),
            address: pusher.address.clone(),
            at,
        };
        let records: Vec<_> = paths.map(record).collect();
        if records.is_empty() {
            return;
        }
        if let Err(error) = state.record_pushes(&records) {
            let (cache, pusher) = (&self.cache.name, &pusher.name);
            let paths = records.len();
            tracing::error!(
                cache,
                pusher,
                paths,
                "who pushed paths could not be recorded: {error}"
            );
        }
    }

    /// Notes a push of another NAR than the one that is here; other refusals leave no trace.
    pub(super) fn record_refusal(&self, error: &PushError, pusher: &Pusher) {
        let (Some(state), PushError::Conflict { path, ours, theirs }) = (&self.state, error) else {
            return;
        };
        let record = ConflictRecord {
            cache: self.cache.name.clone(),
            path: path.hash(),
            kept: *ours,
            refused: *theirs,
            pusher: pusher.name.clone(),
            token: pusher.token.clone(),
            address: pusher.address.clone(),
            at: now(),
        };
        if let Err(error) = state.record_conflict(&record) {
            tracing::error!(cache = self.cache.name, %path, "a conflict could not be recorded: {error}");
        }
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
