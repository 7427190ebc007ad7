//! The flake itself, as `nix flake check` sees it, and the same on a real nixpkgs.

use std::fs;

use serde_json::Value;

use crate::nix::{command, evaluate, nix, project};

#[test]
fn the_flake_is_one_and_all_of_its_outputs_are_what_flakes_have() {
    // Without the rest of the project, which the flake would copy.
    let own = tempfile::tempdir().unwrap();
    for name in ["flake.nix", "Cargo.toml", "Cargo.lock"] {
        fs::copy(project().join(name), own.path().join(name)).unwrap();
    }
    let copied = command("cp").arg("-r").arg(project().join("nixos")).arg(own.path()).status();
    assert!(copied.unwrap().success());
    let mut order = nix("nix");
    order.args(["--extra-experimental-features", "nix-command flakes", "flake", "check"]);
    order.args(["--no-build", "--all-systems", "--offline", "--no-write-lock-file"]);
    order.args(["--override-input", "nixpkgs", "path:./nixos/tests/standin", "path:."]);
    let output = order.current_dir(own.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for part in
        ["nixosModules.snowbank-client", "nixosConfigurations.zfs-proto-3", "overlays.default"]
    {
        assert!(said.contains(part), "{part} was not looked at: {said}");
    }
    assert!(!said.contains("warning: unknown flake output"), "{said}");
}

/// `SNOWBANK_NIXPKGS` names a nixpkgs, `SNOWBANK_NIXPKGS_OVERLAY` a file with an overlay if that lacks something, and
/// `SNOWBANK_NIXOS_MODULES` modules to be imported besides, with colons between them, such as those of disko and agenix.
#[test]
#[ignore = "needs a nixpkgs: SNOWBANK_NIXPKGS=/path cargo test --test nixos -- --ignored"]
fn on_a_real_nixpkgs_every_host_evaluates_to_its_derivation_without_a_warning() {
    let named = |name: &str| std::env::var(name).ok();
    let nixpkgs = named("SNOWBANK_NIXPKGS").expect("SNOWBANK_NIXPKGS names a nixpkgs");
    let overlay = named("SNOWBANK_NIXPKGS_OVERLAY");
    let modules = named("SNOWBANK_NIXOS_MODULES");
    let evaluated = |only: Option<&str>| -> Value {
        let mut words = vec!["nixos/tests/real.nix", "--argstr", "nixpkgs", &nixpkgs];
        words.extend(overlay.iter().flat_map(|file| ["--argstr", "overlay", file]));
        words.extend(modules.iter().flat_map(|files| ["--argstr", "modules", files]));
        words.extend(only.into_iter().flat_map(|only| ["--argstr", "only", only]));
        let output = evaluate(&words, &project());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for name in crate::nix::hosts().as_object().unwrap().keys() {
        let host = &evaluated(Some(name))[name];
        assert_eq!(host["warnings"], serde_json::json!([]), "{name}");
        assert!(host["toplevel"].as_str().unwrap().ends_with(".drv"), "{name}");
    }
    for (group, least) in [("images", 2), ("good", 8), ("tests", 3)] {
        let all = evaluated(Some(group));
        assert!(all.as_object().unwrap().len() >= least, "{all}");
        let mut paths = all.to_string();
        paths.retain(|letter| letter != '"');
        assert!(!paths.contains("null"), "{all}");
    }
}
