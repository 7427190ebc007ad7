# Trust in an authority of one's own, and certificates of its ACME server.
{ config, lib, ... }:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  cfg = config.fleet.internalCa;
in
{
  options.fleet.internalCa = {
    enable = mkEnableOption "trust in an internal certificate authority, for Nix and everything else on the machine";

    rootCertificates = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = lib.literalExpression "[ ./certs/root.pem ]";
      description = "Certificates of roots, in PEM; public, so they may be in the store. `snowbank ca bundle` prints one.";
    };

    domain = mkOption {
      type = types.strMatching "[a-z0-9.-]+";
      default = "internal";
      example = "n3x.internal";
      description = "The domain whose names the authority signs.";
    };

    acme = {
      directory = mkOption {
        type = types.nullOr (types.strMatching "https://.+");
        default = null;
        example = "https://ca.n3x.internal/acme/acme/directory";
        description = "The directory of the authority's ACME server (RFC 8555), if it has one.";
      };
      email = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "A mail address for it.";
      };
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.rootCertificates != [ ];
        message = "fleet.internalCa.rootCertificates is empty: name the certificate of the root that is to be trusted.";
      }
    ];
    security.pki.certificateFiles = cfg.rootCertificates;
    security.acme = mkIf (cfg.acme.directory != null) {
      acceptTerms = true;
      defaults = {
        server = cfg.acme.directory;
        email = mkIf (cfg.acme.email != null) cfg.acme.email;
      };
    };
  };
}
