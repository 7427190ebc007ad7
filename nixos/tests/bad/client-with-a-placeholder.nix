# refused: is a placeholder and not a key
{
  services.snowbank.client = {
    enable = true;
    caches = [
      {
        url = "https://cache.example.org";
        publicKeys = [ "cache-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" ];
      }
    ];
  };
}
