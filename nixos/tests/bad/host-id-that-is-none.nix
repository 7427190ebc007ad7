# refused: fleet.storage.hostId
# refused: is not of type
{
  fleet.storage = {
    enable = true;
    hostId = "my-host";
    layout.disk.cache.serial = "vol1";
    layout.disk.yocto.serial = "vol2";
  };
}
