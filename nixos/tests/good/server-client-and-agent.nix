{
  networking.hostName = "good";
  services.snowbank = {
    enable = true;
    listen = [
      "127.0.0.1:5000"
      "unix:/run/snowbank/http.sock"
    ];
    signingKeyFiles = [ "/run/agenix/key" ];
    settings.cache.default.push = "token";
    settings.cache.team.priority = 20;
    settings.limits.max_nar_size = "16G";
    agent = {
      enable = true;
      to = "https://cache.example.org";
      tokenFile = "/run/agenix/token";
    };
    client = {
      enable = true;
      caches = [
        {
          url = "https://cache.example.org";
          publicKeys = [ "cache.example.org-1:cfaPzUAfWBcRkMX13w7TZ7nCwFJpm7nSZy8T0IsaXtE=" ];
        }
      ];
    };
  };
  fleet.nix.enable = true;
}
