//! Who may read and who may push.
//!
//! Every request to a cache comes by the [`Gate`] before anything is looked up, so that whoever is
//! turned away gets the same answer whether what they asked for is there or not.
//!
//! A token is `sb_<id>_<secret>`. The id is for lists and logs; of the secret, 256 random bits, only the
//! SHA-256 is kept. It is shown as `Authorization: Bearer`, or as the password of `Basic`, which is
//! what Nix sends of its netrc.
//!
//! A client certificate ([`certificate`]) is as good as a token with the rights that its names are given.

pub mod certificate;
mod credential;
mod failures;
mod gate;
pub mod token;

pub use credential::Credential;
pub use gate::{CachePolicy, Caller, Clients, Denial, Gate, Leave, Right};

/// Who may push to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushPolicy {
    /// Nobody.
    None,
    /// Whoever shows a token with the scope push, or a client certificate with a name that may.
    Token,
    /// Whoever shows a client certificate with a name that may.
    Certificate,
    /// Everybody.
    Open,
}

/// Who may read a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Everybody.
    Public,
    /// Whoever shows a token with the scope pull, or a client certificate with a name that may.
    Token,
    /// Whoever shows a client certificate with a name that may.
    Certificate,
}

/// Who sees more of the server's pages than how to use it: what was pushed and by whom, what is asked for, and how the
/// disks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Nobody.
    Nobody,
    /// Whoever shows a token or a client certificate that is good for anything in the cache.
    #[default]
    Known,
    /// The same, and whoever comes from this machine itself.
    Loopback,
    /// Everybody who may read the cache.
    Everybody,
}
