//! Who pushed.

use std::net::IpAddr;

use crate::index::state::TokenRecord;

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
    /// Whoever showed a token, or just came; `source` as in `Gate::check`.
    pub fn new(token: Option<&TokenRecord>, source: Option<IpAddr>) -> Self {
        let address = match source {
            Some(address) => address.to_canonical().to_string(),
            None => "a unix socket".into(),
        };
        let name = token.map_or_else(|| address.clone(), |token| token.name.clone());
        Self { name, token: token.map(|token| token.id.clone()), address }
    }

    /// What tells one client from another: its token, or its address. Names may be the same.
    pub fn client(&self) -> &str {
        self.token.as_deref().unwrap_or(&self.address)
    }

    /// Whether a token (or a certificate) was shown, rather than just being let in.
    pub const fn is_authenticated(&self) -> bool {
        self.token.is_some()
    }
}
