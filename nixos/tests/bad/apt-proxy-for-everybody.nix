# refused: fleet.aptCache.addresses: name the addresses one by one
{
  fleet.aptCache = {
    enable = true;
    addresses = [ "0.0.0.0" ];
  };
}
