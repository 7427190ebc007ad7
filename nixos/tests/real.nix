# The same on a real nixpkgs: the derivations of the example hosts, and of the module that the bad ones spoil.
#
#     nix-instantiate --eval --strict --json nixos/tests/real.nix --argstr nixpkgs /path/to/nixpkgs
{
  nixpkgs,
  # A file with an overlay, for a nixpkgs that lacks something.
  overlay ? null,
  # One host alone.
  only ? null,
}:
let
  lib = import (/. + nixpkgs + "/lib");
  overlays = lib.optional (overlay != null) (import (/. + overlay));
  nixosSystem =
    args: import (/. + nixpkgs + "/nixos/lib/eval-config.nix") ({ system = null; } // args);
  flake = import ../. {
    nixpkgs = {
      lib = lib // {
        inherit nixosSystem;
      };
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
        system:
        import (/. + nixpkgs) {
          inherit system overlays;
        }
      );
    };
    extraModules = [ { nixpkgs.overlays = overlays; } ];
  };
  hosts = if only == null then flake.nixosConfigurations else { ${only} = flake.nixosConfigurations.${only}; };
  images = lib.mapAttrs (_: packages: lib.mapAttrs (_: image: image.drvPath) (removeAttrs packages [ "default" ])) flake.packages;
in
if only == "images" then
  images
else
builtins.mapAttrs (_: host: {
  inherit (host.config) warnings;
  toplevel = host.config.system.build.toplevel.drvPath;
}) hosts
