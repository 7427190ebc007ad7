//! NAR, the archive format of Nix: a strict reader, the framing for writers, and listings.
//!
//! The format is a sequence of words, each an eight-byte little-endian length, the bytes, and zeros
//! up to a multiple of eight. A tree has exactly one encoding, and the reader accepts no other: what
//! it accepts, [`Encoder`] writes again byte for byte. Reader and writer speak in [`Event`]s.
//!
//! Nothing here recurses over input, and nothing allocates by a length that the input declares.

mod encode;
mod error;
mod limits;
mod listing;
mod read;

pub use encode::{Encoder, padding};
pub use error::NarError;
pub use limits::Limits;
pub use listing::{Entries, Listing, ListingBuilder, ListingError, Node};
pub use read::{Event, Parser};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
