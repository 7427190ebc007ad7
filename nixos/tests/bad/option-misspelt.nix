# refused: services.snowbank.settings.cache.default.prioriti
# refused: does not exist
{
  services.snowbank = {
    enable = true;
    settings.cache.default.prioriti = 3;
  };
}
