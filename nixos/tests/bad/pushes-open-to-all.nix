# refused: whoever can connect could push anything
{
  services.snowbank = {
    enable = true;
    settings.cache.default.push = "open";
  };
}
