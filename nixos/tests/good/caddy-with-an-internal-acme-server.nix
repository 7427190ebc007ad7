{ config, ... }:
{
  fleet.internalCa = {
    enable = true;
    domain = "n3x.internal";
    rootCertificates = [ ../../hosts/example-root.pem ];
    acme.directory = "https://ca.n3x.internal/acme/acme/directory";
    acme.email = "ops@n3x.internal";
  };
  services.snowbank = {
    enable = true;
    proxy = {
      kind = "caddy";
      hostName = "cache.n3x.internal";
    };
  };
  assertions = [
    {
      # Where Caddy itself looks for it.
      assertion = config.services.caddy.acmeCA == "https://ca.n3x.internal/acme/acme/directory";
      message = "Caddy would ask a public authority";
    }
  ];
}
