//! Snowbank, a Nix binary cache server that knows it lives on ZFS.
//!
//! The modules stand in the order in which they may import each other: each from those above it
//! only; `tests/architecture.rs` holds them to it.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod fault;
pub mod nix;

pub mod codec;
pub mod metrics;
pub mod sign;

pub mod zfs;

pub mod bank;
pub mod index;
pub mod source;

pub mod native;

pub mod ingest;

pub mod keep;

pub mod auth;
pub mod tls;

pub mod http;

pub mod client;

pub mod config;

pub mod format;

pub mod service;

pub mod app;

pub mod cli;

// The allocator of the program: `main.rs` alone has it.
use tikv_jemallocator as _;
