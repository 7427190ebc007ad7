# refused: services.snowbank.client.caches
# refused: is not of type
{
  services.snowbank.client = {
    enable = true;
    caches = [
      {
        url = "https://cache.example.org";
        publicKeys = [ "PLACEHOLDER_REPLACE_ME" ];
      }
    ];
  };
}
