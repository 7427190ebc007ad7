# refused: there is no certificate: set services.snowbank.tls.certificateFile and keyFile
{
  services.snowbank = {
    enable = true;
    listen = [ "https://0.0.0.0:5443" ];
  };
}
