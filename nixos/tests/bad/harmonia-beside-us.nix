# refused: both would listen at
{
  services.snowbank.insteadOfHarmonia = true;
  services.harmonia.cache.enable = true;
}
