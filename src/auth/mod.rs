//! Who may read and who may push.
//!
//! Every request to a cache comes by the [`Gate`] before anything is looked up, so that whoever is
//! turned away gets the same answer whether what they asked for is there or not.
//!
//! A token is `sb_<id>_<secret>`. The id is for lists and logs; of the secret, 256 random bits, only the
//! SHA-256 is kept. It is shown as `Authorization: Bearer`, or as the password of `Basic`, which is
//! what Nix sends of its netrc.

mod credential;
mod failures;
mod gate;
pub mod token;

pub use credential::Credential;
pub use gate::{CachePolicy, Denial, Gate, Right};

use std::net::IpAddr;

use crate::index::state::TokenRecord;

/// Who may push to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushPolicy {
    /// Nobody.
    None,
    /// Whoever shows a token with the scope push.
    Token,
    /// Everybody.
    Open,
}

/// Who may read a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Everybody.
    Public,
    /// Whoever shows a token with the scope pull.
    Token,
}

/// Somebody who may push: shown by `snowbank why`, and what uploads are counted and kept apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pusher {
    /// For people: the name of the token, or the address where nobody had to say who they are.
    pub name: String,
    /// The token that was shown, if one was.
    pub token: Option<String>,
    /// The address of the client.
    pub address: String,
}

impl Pusher {
    /// Whoever showed a token, or just came; `source` as in [`Gate::check`].
    pub fn new(token: Option<&TokenRecord>, source: Option<IpAddr>) -> Self {
        let address = match source {
            Some(address) => address.to_canonical().to_string(),
            None => "a unix socket".into(),
        };
        let name = token.map_or_else(|| address.clone(), |token| token.name.clone());
        Self { name, token: token.map(|token| token.id.clone()), address }
    }

    /// Whether a token (or a certificate) was shown, rather than just being let in.
    pub const fn is_authenticated(&self) -> bool {
        self.token.is_some()
    }
}
