{
  services.snowbank = {
    enable = true;
    listen = [ "https://0.0.0.0:5443" ];
    openFirewall = true;
    tls.certificateFile = "/run/agenix/certificate";
    tls.keyFile = "/run/agenix/key";
  };
}
