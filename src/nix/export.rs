//! The format of `nix-store --export`: paths with their NARs one after the other, for `nix-store --import`.
//!
//! ```text
//! each path:  1, the NAR, MAGIC, its full path, how many references, each, the deriver (empty where there is none), 0
//! the end:    0
//! ```
//!
//! Numbers have 8 bytes, little endian; texts are a length, the bytes, and zeros up to a multiple of 8, as in a NAR. The
//! last 0 of a path says that no signature of an old form follows. Source: Nix's `export-import.cc`.

use super::nar::padding;
use super::path_info::PathInfo;
use super::store_path::StoreDir;

/// What stands before the NAR of each path.
pub const ONE_MORE: [u8; 8] = 1_u64.to_le_bytes();
/// What stands at the end.
pub const END: [u8; 8] = 0_u64.to_le_bytes();
/// `NIXE`.
const MAGIC: u64 = 0x4558_494e;

/// What stands behind the NAR of a path.
pub fn trailer(info: &PathInfo, store_dir: &StoreDir) -> Vec<u8> {
    let mut references: Vec<String> =
        info.references.iter().map(|reference| store_dir.join(reference)).collect();
    // A set, as Nix has it.
    references.sort_unstable();
    references.dedup();
    let deriver = info.deriver.as_ref().map(|deriver| store_dir.join(deriver)).unwrap_or_default();
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    push_text(&mut bytes, &store_dir.join(&info.path));
    bytes.extend_from_slice(&(references.len() as u64).to_le_bytes());
    references.iter().for_each(|reference| push_text(&mut bytes, reference));
    push_text(&mut bytes, &deriver);
    bytes.extend_from_slice(&0_u64.to_le_bytes());
    bytes
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(bytes.len() + padding(text.len() as u64), 0);
}
