//! Compressed bytes, in and out: always with limits, always strict.
//!
//! [`seekable`] is the form in which a NAR is stored. Everything here is synchronous and allocates
//! by constants or by what was really read, never by a length that the input merely declares.

pub mod read_at;
pub mod seekable;
