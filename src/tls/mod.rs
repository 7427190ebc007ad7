//! TLS: what the server shows of itself, and how it changes while connections go on; and what a client
//! is to think of what it is shown.

pub mod acme;
pub mod authority;
pub mod certificate;
pub mod challenge;
pub mod client;
pub mod issuance;
pub mod probe;
pub mod server;
pub mod trust;

/// The two protocols that are spoken inside, by their names in ALPN (RFC 7301), the preferred one first.
pub const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
