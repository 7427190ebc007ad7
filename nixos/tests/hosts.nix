# The example hosts on the stand-in for nixpkgs: what `nixos/tests/run` looks at, as JSON.
let
  standIn = import ./standin;
  flake = import ../. { nixpkgs = standIn; };
  hosts = flake.nixosConfigurations;

  plain = import ./standin/plain.nix;
in
builtins.mapAttrs (
  _: host:
  let
    inherit (host) config;
  in
  builtins.seq config.system.build.toplevel (plain {
    inherit (config) warnings;
    inherit (config.networking)
      hostName
      hostId
      hosts
      firewall
      ;
    inherit (config.systemd) services sockets tmpfiles;
    inherit (config.nix) settings gc;
    inherit (config) fileSystems;
    inherit (config.users) users groups;
    inherit (config.security.pki) certificateFiles;
    caddy = config.services.caddy.virtualHosts;
    nginx = config.services.nginx.virtualHosts;
    runner = config.services.gitlab-runner.services;
    etc = config.environment.etc;
    aptCache =
      if config.fleet.aptCache.enable then
        builtins.listToAttrs (
          map (entry: {
            inherit (entry) name;
            value = entry.path;
          }) config.fleet.aptCache.configuration.entries
        )
      else
        null;
    layout = if config.fleet.storage.enable then config.fleet.storage.file.text else null;
  })
) hosts
