# refused: there is no server for it: set services.snowbank.enable
{
  services.snowbank.proxy = {
    kind = "caddy";
    hostName = "cache.example.org";
  };
}
