//! How much of a NAR is too much.

/// Bounds on a NAR, for reader, writer and listing alike. The defaults accept whatever Nix accepts,
/// up to a size that no real store path comes near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How deep nodes may lie; the root lies at depth 0. 64 as in Nix, which bounds it since
    /// CVE-2026-44028: a client could not unpack anything deeper.
    pub max_depth: usize,
    /// The longest name of a directory entry in bytes. 255 as in Nix and in every file system.
    pub max_name: usize,
    /// The longest target of a symlink in bytes. 4095 as in Nix and in Linux.
    pub max_target: usize,
    /// The most nodes (files, symlinks and directories, the root included). 10 million: the largest
    /// trees in nixpkgs have some hundred thousand.
    pub max_entries: u64,
    /// The most bytes of the whole NAR. 32 GiB.
    pub max_size: u64,
    /// The most nodes that are kept in memory as a listing. 1 million, which is about 100 MiB; a
    /// larger NAR is stored and served all the same, but without a listing.
    pub max_listing_entries: u64,
    /// The most bytes of all names and targets in a listing together. 64 MiB.
    pub max_listing_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_name: 255,
            max_target: 4095,
            max_entries: 10_000_000,
            max_size: 32 << 30,
            max_listing_entries: 1_000_000,
            max_listing_bytes: 64 << 20,
        }
    }
}
