//! What Nix means by its words, and nothing else: no files, no clock, no tasks.

mod as_text;
pub mod base32;
pub(crate) mod base64;
pub mod build_id;
pub mod cache_info;
pub mod content_address;
pub mod derivation;
pub mod export;
pub mod hash;
pub mod nar;
pub mod nar_url;
pub mod narinfo;
pub mod path_info;
pub mod realisation;
pub mod references;
pub mod signature;
pub mod store_path;
