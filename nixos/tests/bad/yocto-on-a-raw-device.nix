# refused: fleet.yoctoCache.device
# refused: is not of type
{
  fleet.yoctoCache = {
    enable = true;
    device = "/dev/nvme2n1";
  };
}
