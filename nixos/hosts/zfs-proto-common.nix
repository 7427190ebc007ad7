# One of three machines that are each other's replica and substituter, on a network of their own.
{ config, lib, ... }:
let
  fleet = import ./fleet.nix;
  name = config.networking.hostName;
  trio = lib.filterAttrs (_: cache: cache ? address) fleet.caches;
  own = trio.${name};
in
{
  imports = [ ./cache-runner.nix ];
  nixpkgs.hostPlatform = "x86_64-linux";
  fleet.peers = builtins.attrNames (removeAttrs trio [ name ]);

  # The server speaks TLS itself, with a certificate of a week from the internal authority.
  services.snowbank = {
    listen = [
      "127.0.0.1:5000"
      "https://${own.address}:5443"
    ];
    firewallInterfaces = [ "cluster" ];
    allowedNetworks = [ "10.99.0.0/24" ];
    settings.tls = {
      certificate_from = "internal-ca";
      names = [ "cache.${name}.${fleet.domain}" ];
      ca_certificate = "/run/agenix/intermediate.pem";
      ca_key = "/run/agenix/intermediate.key";
    };
    settings.cache.default.peers = map (peer: trio.${peer}.url) config.fleet.peers;
    settings.cache.default.trusted_keys = lib.concatMap (
      peer: trio.${peer}.publicKeys
    ) config.fleet.peers;
  };
  fleet.storage = {
    kind = "single-disk";
    layout.disk.system.device = lib.mkDefault "/dev/disk/by-id/nvme-EXAMPLE_DISK_${name}";
  };

  networking.hosts = lib.mapAttrs' (
    host: cache: lib.nameValuePair cache.address [ "cache.${host}.${fleet.domain}" ]
  ) trio;
  networking.useNetworkd = true;
  networking.useDHCP = false;
  systemd.network.enable = true;
  systemd.network.networks."10-mgmt" = {
    matchConfig.Name = "mgmt";
    networkConfig.DHCP = "ipv4";
  };
  systemd.network.networks."20-cluster" = {
    matchConfig.Name = "cluster";
    networkConfig.Address = "${own.address}/24";
  };
  # Where disko makes the disks it says this itself.
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
