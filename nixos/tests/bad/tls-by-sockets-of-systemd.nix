# refused: systemd hands over sockets without TLS; set it to false
{
  services.snowbank = {
    enable = true;
    socketActivation = true;
    listen = [ "https://0.0.0.0:5443" ];
    tls.certificateFile = "/c";
    tls.keyFile = "/k";
  };
}
