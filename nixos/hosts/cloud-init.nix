# A guest that is told by cloud-init who it is, and by networkd how it reaches others: one of each, so that they are not
# in each other's way.
{
  networking.useDHCP = false;
  networking.useNetworkd = true;
  systemd.network.enable = true;
  services.cloud-init = {
    enable = true;
    network.enable = true;
  };
}
