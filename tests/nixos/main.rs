//! The NixOS modules and the example fleet, evaluated by a real Nix: on a stand-in for nixpkgs where there is none
//! (`nixos/tests/standin`), and on a real one as well where `SNOWBANK_NIXPKGS` names it.

#![expect(clippy::unwrap_used, reason = "a test says by failing what it could not do")]
#![expect(clippy::panic, reason = "so does this")]

mod bench;
mod builders;
mod flake;
mod fleet;
mod images;
mod jenkins;
mod kubevirt;
mod mutations;
mod negative;
mod nix;
mod options;
mod programs;
mod proxies;
mod proxmox;
mod rows;
mod run_vm;
mod secrets;
mod texts;
mod units;
