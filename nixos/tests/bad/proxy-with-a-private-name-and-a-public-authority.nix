# refused: no public authority signs cache.n3x.internal
{
  fleet.internalCa = {
    enable = true;
    domain = "n3x.internal";
    rootCertificates = [ ../../hosts/example-root.pem ];
  };
  services.snowbank = {
    enable = true;
    proxy = {
      kind = "caddy";
      hostName = "cache.n3x.internal";
    };
  };
}
