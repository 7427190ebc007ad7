# refused: services.snowbank.listen is empty: name at least one address
{
  services.snowbank = {
    enable = true;
    listen = [ ];
    socketActivation = true;
  };
}
