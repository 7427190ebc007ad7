//! What speaks HTTP: the accept loop and, above it, one file an endpoint.

pub mod listen;
