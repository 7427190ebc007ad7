{
  security.acme.acceptTerms = true;
  security.acme.defaults.email = "ops@example.org";
  services.snowbank = {
    enable = true;
    proxy = {
      kind = "nginx";
      hostName = "cache.example.org";
      interfaces = [ "eth0" ];
    };
  };
}
