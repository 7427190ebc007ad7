# The options of NixOS, and what a system is built of.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  plain = import ./plain.nix;
  configured =
    removeAttrs config [
      "_module"
      "assertions"
      "fleet"
      "meta"
      "nixpkgs"
      "system"
    ]
    // {
      # Of ours what is not enabled need not be set.
      services = removeAttrs config.services [ "snowbank" ];
    };
  failed = builtins.filter (one: !one.assertion) config.assertions;
  messages = builtins.concatStringsSep "\n" (map (one: "- ${one.message}") failed);
in
{
  options = lib.recursiveUpdate (import ./declared.nix { inherit lib; }) {
    assertions = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [ ];
    };
    system.build = mkOption {
      type = types.lazyAttrsOf types.raw;
      default = { };
    };
    meta = mkOption {
      type = types.anything;
      default = { };
    };
  };
  # An image is a system with what its kind needs.
  config.system.build.images = lib.genAttrs [
    "amazon"
    "google-compute"
    "kubevirt"
    "proxmox"
  ] (kind: builtins.seq config.system.build.toplevel (pkgs.writeText "image-${kind}" ""));
  config.system.build.vm = pkgs.package "run-vm";
  config.system.build.toplevel =
    if failed != [ ] then
      throw "\nFailed assertions:\n${messages}"
    else
      # A system is built of all that is configured, so all of it must have a value.
      builtins.seq (builtins.toJSON (plain configured)) (
        pkgs.writeText "nixos-system-${config.networking.hostName}" ""
      );
}
