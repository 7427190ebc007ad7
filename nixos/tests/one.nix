# One machine with a module of its own on top of all of ours; evaluates to its name if it can be built.
{
  file,
  nixpkgs ? import ./standin,
}:
let
  inherit (import ./host.nix nixpkgs file) config;
in
# All that a system is made of, not only what an assertion looks at.
builtins.deepSeq [
  config.nix.settings
  config.networking.firewall
  (builtins.mapAttrs (_: service: service.serviceConfig) config.systemd.services)
  (builtins.mapAttrs (_: etc: etc.source) config.environment.etc)
] (builtins.seq config.system.build.toplevel config.networking.hostName)
