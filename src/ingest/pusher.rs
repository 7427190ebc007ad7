//! Who pushed.

use std::net::IpAddr;

use crate::index::state::TokenRecord;

/// Somebody who may push: shown by `snowbank why`, and what uploads are counted and kept apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pusher {
    /// For people: the name of the token or of the certificate, or the address where nobody had to say who
    /// they are.
    pub name: String,
    /// The address of the client.
    pub address: String,
    proof: Proof,
}

/// What was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    Nothing,
    /// A token of this id.
    Token(String),
    /// A certificate with the pusher's name.
    Certificate,
}

impl Pusher {
    /// Whoever just came; `source` is the address, `None` a unix socket.
    pub fn anybody(source: Option<IpAddr>) -> Self {
        let address = match source {
            Some(address) => address.to_canonical().to_string(),
            None => "a unix socket".into(),
        };
        Self { name: address.clone(), address, proof: Proof::Nothing }
    }

    /// Whoever showed a token.
    pub fn with_token(token: &TokenRecord, source: Option<IpAddr>) -> Self {
        let (name, proof) = (token.name.clone(), Proof::Token(token.id.clone()));
        Self { name, proof, ..Self::anybody(source) }
    }

    /// Whoever showed a certificate with this name.
    pub fn with_certificate(name: &str, source: Option<IpAddr>) -> Self {
        Self { name: name.to_owned(), proof: Proof::Certificate, ..Self::anybody(source) }
    }

    /// Nobody: this server fetched a path itself, from the cache at `url`.
    pub fn upstream(url: &str) -> Self {
        Self { name: url.into(), address: url.into(), proof: Proof::Nothing }
    }

    /// What tells one client from another: its token, its certificate's name, or its address. Names of tokens
    /// may be the same.
    pub fn client(&self) -> &str {
        match &self.proof {
            Proof::Nothing => &self.address,
            Proof::Token(id) => id,
            Proof::Certificate => &self.name,
        }
    }

    /// The id of the token that was shown, if one was.
    pub fn token(&self) -> Option<&str> {
        match &self.proof {
            Proof::Token(id) => Some(id),
            Proof::Nothing | Proof::Certificate => None,
        }
    }

    /// Whether a token or a certificate was shown, rather than just being let in.
    pub const fn is_authenticated(&self) -> bool {
        !matches!(self.proof, Proof::Nothing)
    }
}
