//! What Nix means by its words, and nothing else: no files, no clock, no tasks.

pub mod base32;
pub mod hash;
pub mod nar;
pub mod store_path;
