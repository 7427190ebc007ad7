# refused: there is no Nix on this machine (nix.enable = false)
{
  nix.enable = false;
  services.snowbank.agent = {
    enable = true;
    to = "https://cache.example.org";
  };
}
