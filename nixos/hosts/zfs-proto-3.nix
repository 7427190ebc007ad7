{
  imports = [ ./zfs-proto-common.nix ];
  networking.hostName = "zfs-proto-3";
  fleet.storage.hostId = "5e1c0b03";
}
