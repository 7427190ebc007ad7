# refused: fleet.aptCache.port
# refused: is not of type
{
  fleet.aptCache = {
    enable = true;
    port = 45000;
  };
}
