# Caddy or nginx in front of the server. Neither is needed for TLS: the server speaks it itself.
{ config, lib, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.snowbank.proxy;
  server = config.services.snowbank;
  address = lib.findFirst (lib.hasPrefix "127.") null server.listen;
  ca = config.fleet.internalCa;
in
{
  options.services.snowbank.proxy = {
    kind = mkOption {
      type = types.nullOr (
        types.enum [
          "caddy"
          "nginx"
        ]
      );
      default = null;
      description = "What stands in front of the server; nothing if null.";
    };

    hostName = mkOption {
      type = types.strMatching "[a-z0-9.-]+";
      example = "cache.example.org";
      description = "The name under which clients know the cache.";
    };

    certificate = mkOption {
      default = "acme";
      type = types.enum [
        "acme"
        "files"
      ];
      description = ''
        Where the certificate comes from: `acme` from a public authority, or from the ACME server of `fleet.internalCa`
        where that has one; `files` from `certificateFile` and `keyFile`. There is no "internal": what Caddy calls so is an
        authority of its own, which no Nix trusts.
      '';
    };

    certificateFile = mkOption {
      type = types.nullOr (types.strMatching "/.*");
      default = null;
      description = "For `files`: the certificate with its chain, in PEM.";
    };

    keyFile = mkOption {
      type = types.nullOr (types.strMatching "/.*");
      default = null;
      description = "For `files`: its key, in PEM, which the proxy's user can read.";
    };

    interfaces = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "cluster" ];
      description = "Interfaces on which ports 80 and 443 are opened; with none of them, they stay closed.";
    };
  };

  config = mkIf (cfg.kind != null) {
    assertions = [
      {
        assertion = server.enable;
        message = "services.snowbank.proxy.kind is set, and there is no server for it: set services.snowbank.enable.";
      }
      {
        assertion = address != null;
        message = "services.snowbank.proxy needs the server on loopback: add \"127.0.0.1:5000\" to services.snowbank.listen.";
      }
      {
        assertion = cfg.certificate == "files" -> cfg.certificateFile != null && cfg.keyFile != null;
        message = "services.snowbank.proxy.certificate is \"files\": set certificateFile and keyFile.";
      }
      {
        assertion =
          cfg.certificate == "acme" && ca.enable && lib.hasSuffix ".${ca.domain}" cfg.hostName
          -> ca.acme.directory != null;
        message = "services.snowbank.proxy: no public authority signs ${cfg.hostName}; set fleet.internalCa.acme.directory, or certificate = \"files\".";
      }
    ];

    # Errors and misses are for nobody's cache: the server says of each answer how long it keeps, and the proxy adds nothing.
    services.caddy = mkIf (cfg.kind == "caddy") {
      enable = true;
      # Caddy reads its own option, not security.acme.
      acmeCA = mkIf (cfg.certificate == "acme" && ca.acme.directory != null) ca.acme.directory;
      email = mkIf (ca.acme.email != null) ca.acme.email;
      virtualHosts.${cfg.hostName}.extraConfig = ''
        ${lib.optionalString (cfg.certificate == "files") "tls ${cfg.certificateFile} ${cfg.keyFile}"}
        reverse_proxy ${address} {
          flush_interval -1
        }
      '';
    };

    services.nginx = mkIf (cfg.kind == "nginx") {
      enable = true;
      virtualHosts.${cfg.hostName} = {
        forceSSL = true;
        enableACME = cfg.certificate == "acme";
        sslCertificate = mkIf (cfg.certificate == "files") cfg.certificateFile;
        sslCertificateKey = mkIf (cfg.certificate == "files") cfg.keyFile;
        locations."/" = {
          proxyPass = "http://${address}";
          extraConfig = ''
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_buffering off;
            proxy_request_buffering off;
            client_max_body_size 0;
          '';
        };
      };
    };

    networking.firewall.interfaces = lib.genAttrs cfg.interfaces (_: {
      allowedTCPPorts = [
        80
        443
      ];
    });
  };
}
