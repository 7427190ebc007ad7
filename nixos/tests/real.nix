# The same on a real nixpkgs: the derivations of the example hosts, and of the module that the bad ones spoil.
#
#     nix-instantiate --eval --strict --json nixos/tests/real.nix --argstr nixpkgs /path/to/nixpkgs
{
  nixpkgs,
  # A file with an overlay, for a nixpkgs that lacks something.
  overlay ? null,
  # Modules to be imported beside ours, with colons between them: those of disko and agenix.
  modules ? "",
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
    extraModules = [
      { nixpkgs.overlays = overlays; }
    ]
    ++ map (file: /. + file) (lib.filter (file: file != "") (lib.splitString ":" modules));
  };
  hosts =
    if only == null then
      flake.nixosConfigurations
    else
      { ${only} = flake.nixosConfigurations.${only}; };
  images = lib.mapAttrs (
    _: packages: lib.mapAttrs (_: image: image.drvPath) (removeAttrs packages [ "default" ])
  ) flake.packages;
in
if only == "images" then
  images
else if only == "apps" then
  lib.mapAttrs (_: app: app.program) flake.apps.x86_64-linux
else if only == "tests" then
  lib.mapAttrs (_: test: test.drvPath) (
    lib.filterAttrs (name: _: lib.hasPrefix "vm-" name) flake.checks.x86_64-linux
  )
else if only == "good" then
  # The modules that can be built, each with a boot loader and a root of its own, which NixOS wants.
  lib.mapAttrs (
    name: _:
    (nixosSystem {
      modules = [
        flake.nixosModules.default
        ./good/${name}
        {
          nixpkgs.hostPlatform = "x86_64-linux";
          nixpkgs.overlays = [ flake.overlays.default ] ++ overlays;
          boot.loader.grub.device = "nodev";
          fileSystems."/".device = "/dev/disk/by-label/nixos";
          fileSystems."/".fsType = "ext4";
          system.stateVersion = "26.05";
        }
      ];
    }).config.system.build.toplevel.drvPath
  ) (builtins.readDir ./good)
else
  builtins.mapAttrs (_: host: {
    inherit (host.config) warnings;
    toplevel = host.config.system.build.toplevel.drvPath;
  }) hosts
