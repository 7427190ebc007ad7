# refused: names a cache twice
{
  services.snowbank.client = {
    enable = true;
    caches =
      let
        one = {
          url = "https://cache.example.org";
          publicKeys = [ "c-1:cfaPzUAfWBcRkMX13w7TZ7nCwFJpm7nSZy8T0IsaXtE=" ];
        };
      in
      [
        one
        one
      ];
  };
}
