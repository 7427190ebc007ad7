# refused: https://cache.example.org has no publicKeys
{
  services.snowbank.client = {
    enable = true;
    caches = [ { url = "https://cache.example.org"; } ];
  };
}
