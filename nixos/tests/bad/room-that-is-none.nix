# refused: fleet.nix: minFreeGiB (30) must be less than maxFreeGiB (25)
{
  fleet.nix = {
    enable = true;
    minFreeGiB = 30;
  };
}
