//! Whether anybody may go near the disks under a source.
//!
//! A pool that has lost its devices hangs whoever reads or writes, beyond the reach of a signal. Whoever
//! watches the disks ([`crate::keep::watch`]) closes the source then, and every question to it is
//! answered at once: not "not here", which clients would remember, but "not now".

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use super::SourceError;

/// How a source stands. Open, until somebody closes it.
#[derive(Debug, Default)]
pub struct Standing {
    is_closed: AtomicBool,
    why: RwLock<String>,
}

impl Standing {
    /// Closes the source, with the reason, or opens it again.
    pub fn set(&self, closed: Option<String>) {
        let is_closed = closed.is_some();
        if let Some(why) = closed {
            *self.why.write().unwrap_or_else(PoisonError::into_inner) = why;
        }
        self.is_closed.store(is_closed, Ordering::Release);
    }

    /// Fails while the source is closed. Touches memory only.
    pub fn check(&self) -> Result<(), SourceError> {
        if !self.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let why = self.why.read().unwrap_or_else(PoisonError::into_inner);
        Err(SourceError::Unavailable(why.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_open_until_it_is_closed_and_open_again_afterwards() {
        let standing = Standing::default();
        assert!(standing.check().is_ok());
        standing.set(Some("no disks".into()));
        let error = standing.check().unwrap_err();
        assert!(matches!(&error, SourceError::Unavailable(why) if why == "no disks"));
        standing.set(None);
        assert!(standing.check().is_ok());
    }
}
