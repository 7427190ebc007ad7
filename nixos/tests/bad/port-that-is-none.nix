# refused: services.snowbank.listen
# refused: is not of type
{
  services.snowbank = {
    enable = true;
    listen = [ "localhost" ];
  };
}
