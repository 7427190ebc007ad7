//! From bytes that arrive to a published path.

mod admit;
mod check;
pub mod collect;
mod commit;
mod content;
mod error;
mod expire;
mod facts;
mod heal;
pub mod nar;
mod objects;
mod publish;
pub mod pull;
mod pusher;
mod quota;
mod record;
mod refusal;
mod reread;
mod room;
mod share;
mod upload;

pub use check::Policy;
pub use error::{Class, IngestError};
pub use expire::Expiry;
pub use publish::{Ingest, Outcome, Place};
pub use pusher::Pusher;
pub use quota::Quota;
pub use record::Recorder;
pub use refusal::PushError;
pub use room::NoRoom;
pub use share::Twin;

/// Which paths a cache takes from those who may push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Those signed by a trusted key, and those whose content address is that of their content.
    Trusted,
    /// Whatever an authenticated pusher sends; on an open cache, whatever anybody sends.
    Pusher,
}
