//! From bytes that arrive to a published path.

mod error;
pub mod nar;

pub use error::{Class, IngestError};

/// Which paths a cache takes from those who may push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Those signed by a trusted key, and those whose content address is that of their content.
    Trusted,
    /// Whatever an authenticated pusher sends; on an open cache, whatever anybody sends.
    Pusher,
}
