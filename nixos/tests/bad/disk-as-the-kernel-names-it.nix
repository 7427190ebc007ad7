# refused: a disk is named as the kernel names it
{
  fleet.storage = {
    enable = true;
    kind = "single-disk";
    hostId = "12345678";
    layout.disk.system.device = "/dev/nvme0n1";
  };
}
