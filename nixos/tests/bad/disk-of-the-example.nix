# refused: fleet.storage.layout.disk.cache is the one of the example
{
  fleet.storage = {
    enable = true;
    hostId = "12345678";
    layout.disk.yocto.serial = "vol1";
  };
}
