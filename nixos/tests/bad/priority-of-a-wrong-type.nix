# refused: services.snowbank.settings.cache.default.priority
# refused: is not of type
{
  services.snowbank = {
    enable = true;
    settings.cache.default.priority = "high";
  };
}
