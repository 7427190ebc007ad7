//! The host's own Nix store.

pub mod tree;
