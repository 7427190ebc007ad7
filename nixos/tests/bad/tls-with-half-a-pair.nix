# refused: services.snowbank.tls takes both certificateFile and keyFile
{
  services.snowbank = {
    enable = true;
    tls.certificateFile = "/run/c.pem";
  };
}
