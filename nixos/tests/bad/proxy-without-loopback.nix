# refused: services.snowbank.proxy needs the server on loopback
{
  services.snowbank = {
    enable = true;
    listen = [ "10.0.0.1:5000" ];
    proxy = {
      kind = "nginx";
      hostName = "cache.example.org";
    };
  };
}
