//! End to end: the real `snowbank` binary, started on a loopback port, with a real Nix as its client and
//! a raw HTTP/1.1 client for what no Nix would send.
//!
//! The fixtures, real store paths made by a real Nix, are built once and kept under `target/e2e`;
//! `tests/tools/nix.sh` unpacks the Nix. Nothing here needs root, `/nix`, or a network other than the
//! Debian mirror that the Nix comes from.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed, and the panic says where"
)]

mod agent;
mod auth;
mod bad_input;
mod bad_state;
mod bank_without_server;
mod ca;
mod client_agent;
mod client_push;
mod client_push_faults;
mod collect;
mod configuration;
mod crash_load;
mod crash_state;
mod crash_steps;
mod differential;
mod doctor_url;
mod durability_errors;
mod durability_order;
mod durability_room;
mod endpoints;
mod faults;
mod heal;
mod hook;
mod listings;
mod logs;
mod monitoring;
mod nars;
mod overload;
mod pages;
mod pages_in_a_browser;
mod parts;
mod pins;
mod pull;
mod push_bad_nars;
mod push_extras;
mod push_lies;
mod push_names;
mod push_native;
mod push_native_uploads;
mod push_races;
mod push_stock;
mod read_errors;
mod service;
mod substitute;
mod support;
mod tls;
mod tls_acme;
mod tls_clients;
mod tls_internal;
mod tls_overload;
mod tls_proxies;
mod top;
mod transfer;
mod verify;
mod views;
mod why;
