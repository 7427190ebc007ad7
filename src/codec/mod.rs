//! Compressed bytes, in and out: always with limits, always strict.
//!
//! [`seekable`] is the form in which a NAR is stored; [`Decoder`] reads every form in which one
//! may arrive. Everything here is synchronous and allocates by constants or by what was really
//! read, never by a length that the input merely declares.

mod compression;
mod decode;
mod encode;
mod error;
mod hashed;
pub mod read_at;
pub mod seekable;
#[cfg(test)]
pub(crate) mod testing;

pub use compression::{Compression, UnknownCompression};
pub use decode::{DEFAULT_MAX_MEMORY, DEFAULT_MAX_RATIO, Decoder, Limits, RATIO_FREE};
pub use encode::Compressed;
pub use error::CodecError;
pub use hashed::Hashed;
