# The units of a server with ZFS, as the module makes them: what `tests/zfs/unit` has a real systemd run on a real pool.
let
  nixpkgs = import ./standin;
  flake = import ../. { inherit nixpkgs; };
  host = nixpkgs.lib.nixosSystem {
    modules = [
      flake.nixosModules.default
      {
        nixpkgs.hostPlatform = "x86_64-linux";
        nixpkgs.overlays = [ flake.overlays.default ];
        services.snowbank = {
          enable = true;
          socketActivation = false;
          listen = [ "127.0.0.1:5000" ];
          signingKeyFiles = [ "/root/signing-key" ];
          zfs.enable = true;
          settings.zfs.dataset = "tank/snowbank";
        };
      }
    ];
  };
  inherit (host.config.systemd) services;
in
{
  server = services.snowbank.serviceConfig;
  init = services.snowbank-zfs-init.serviceConfig;
}
