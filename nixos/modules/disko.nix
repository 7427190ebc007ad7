# The layout of `snowbank format` as disko has it, for an installation by nixos-anywhere.
{ lib, layout }:
let
  typeOf = {
    esp = {
      type = "EF00";
      content = {
        type = "filesystem";
        format = "vfat";
        mountpoint = "/boot";
        mountOptions = [ "umask=0077" ];
      };
    };
    ext4 = {
      content = {
        type = "filesystem";
        format = "ext4";
        mountpoint = "/";
      };
    };
    zfs = {
      content = {
        type = "zfs";
        pool = layout.pool.name;
      };
    };
  };
  size = text: if text == "rest" then "100%" else text;
  partition = part: {
    inherit (part) name;
    value = {
      label = part.partlabel or "snowbank-${part.name}";
      size = size part.size;
    }
    // typeOf.${part.type};
  };
  # A disk without partitions is one, for the pool or for a volume.
  partitionsOf =
    name: disk:
    disk.partitions or [
      {
        inherit name;
        size = "rest";
        type = if lib.elem name layout.pool.partitions then "zfs" else "ext4";
      }
    ];
  deviceOf =
    disk:
    disk.device or (
      if disk ? serial then
        "/dev/disk/by-id/*_${disk.serial}"
      else
        "/dev/disk/by-partlabel/${disk.partlabel}"
    );
in
{
  disk = lib.mapAttrs (name: disk: {
    type = "disk";
    device = deviceOf disk;
    content = {
      type = "gpt";
      partitions = builtins.listToAttrs (map partition (partitionsOf name disk));
    };
  }) layout.disk;
  zpool.${layout.pool.name} = {
    type = "zpool";
    options = {
      ashift = toString (layout.pool.ashift or 12);
      autotrim = if layout.pool.autotrim or true then "on" else "off";
    };
    rootFsOptions.mountpoint = "none";
    # The datasets are those that `snowbank format` makes at the first boot, with the properties of their roles.
    datasets = { };
  };
}
