{
  imports = [ ./zfs-proto-common.nix ];
  networking.hostName = "zfs-proto-1";
  fleet.storage.hostId = "5e1c0b01";
}
