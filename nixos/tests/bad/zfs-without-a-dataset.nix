# refused: name the dataset that the caches lie below
{
  services.snowbank = {
    enable = true;
    zfs.enable = true;
  };
}
