//! The accept loop.

mod address;

pub use address::{AddressError, ListenAddress};
