//! On a real pool: what only a kernel with OpenZFS can show. `tests/zfs/run` runs these tests in a virtual machine that
//! is thrown away, as root, one after another, and gives them empty disks; those that are ignored belong to scripts that
//! start the machine several times, such as `tests/zfs/power-cut`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed, and the panic says where"
)]

mod bed;
mod bindings;
mod cache;
mod collect;
mod commands;
#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod e2e;
mod faults;
mod format;
mod init;
mod pool;
mod power_cut;
mod releases;
mod replicate;
mod serving;
mod snapshots;
mod ssh;
mod support;
