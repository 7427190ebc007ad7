# One machine with a module of its own on top of all of ours; evaluates to its name if it can be built.
{
  file,
  nixpkgs ? import ./standin,
}:
let
  flake = import ../. { inherit nixpkgs; };
  host = nixpkgs.lib.nixosSystem {
    modules = [
      flake.nixosModules.default
      {
        nixpkgs.hostPlatform = "x86_64-linux";
        nixpkgs.overlays = [ flake.overlays.default ];
      }
      file
    ];
  };
  inherit (host) config;
in
# All that a system is made of, not only what an assertion looks at.
builtins.deepSeq [
  config.nix.settings
  config.networking.firewall
  (builtins.mapAttrs (_: service: service.serviceConfig) config.systemd.services)
  (builtins.mapAttrs (_: etc: etc.source) config.environment.etc)
] (builtins.seq config.system.build.toplevel config.networking.hostName)
