# Blank disks become what the layout says, at the first boot; at the second they are as they were, with what is on them.
{ modules }:
{ ... }:
{
  name = "snowbank-first-boot";
  nodes.machine = {
    imports = modules;
    virtualisation.emptyDiskImages = [
      {
        size = 4096;
        driveConfig.deviceExtraOpts.serial = "cache0";
      }
      {
        size = 1024;
        driveConfig.deviceExtraOpts.serial = "yocto0";
      }
    ];
    fleet.storage = {
      enable = true;
      hostId = "8f3a1c02";
      layout.disk.cache.serial = "cache0";
      layout.disk.yocto.serial = "yocto0";
    };
    services.snowbank = {
      enable = true;
      zfs.enable = true;
      settings.zfs.dataset = "cache/snowbank";
    };
  };
  testScript = ''
    machine.wait_for_unit("snowbank-format.service")
    machine.wait_for_unit("snowbank.service")
    machine.succeed("zfs list cache/snowbank/default", "mountpoint /var/cache/yocto")
    machine.succeed("echo kept > /var/cache/yocto/kept", "zfs snapshot cache/snowbank/default@kept")
    guid = machine.succeed("zpool get -H -o value guid cache").strip()
    machine.shutdown()
    machine.start()
    machine.wait_for_unit("snowbank.service")
    machine.succeed("grep kept /var/cache/yocto/kept", "zfs list -t snapshot cache/snowbank/default@kept")
    assert guid == machine.succeed("zpool get -H -o value guid cache").strip()
  '';
}
