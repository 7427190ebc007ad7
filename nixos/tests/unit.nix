# The units of a server with ZFS, as the module makes them: what `tests/zfs/unit` has a real systemd run on a real pool.
let
  host = import ./host.nix (import ./standin) {
    services.snowbank = {
      enable = true;
      socketActivation = false;
      listen = [ "127.0.0.1:5000" ];
      signingKeyFiles = [ "/root/signing-key" ];
      zfs.enable = true;
      settings.zfs.dataset = "tank/snowbank";
    };
  };
  inherit (host.config.systemd) services;
in
{
  server = services.snowbank.serviceConfig;
  init = services.snowbank-zfs-init.serviceConfig;
}
