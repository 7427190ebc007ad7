# A proxy that keeps the packages of Debian: apt-cacher-ng, for the machines that build images with it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  ours = import ./lib.nix { inherit lib; };
  cfg = config.fleet.aptCache;

  # It takes a directory of configuration, and reads every *.conf in it.
  configuration = pkgs.linkFarm "apt-cacher-ng" [
    {
      name = "acng.conf";
      path = pkgs.writeText "acng.conf" ''
        CacheDir: /var/cache/apt-cacher-ng
        LogDir: /var/log/apt-cacher-ng
        Port: ${toString cfg.port}
        BindAddress: ${lib.concatStringsSep " " cfg.addresses}
        ReportPage: acng-report.html
        ExThreshold: 4
        # Nothing is passed through that is not of a repository: no proxy for everything.
        PassThroughPattern: ^$
        Remap-debian: file:debian_mirrors /debian ; ${cfg.mirror}
        ${cfg.extraConfig}
      '';
    }
    {
      name = "debian_mirrors";
      path = pkgs.writeText "debian_mirrors" "${cfg.mirror}\n";
    }
  ];
in
{
  options.fleet.aptCache = {
    enable = mkEnableOption "a proxy that keeps packages of Debian";

    package = mkOption {
      type = types.package;
      default = pkgs.apt-cacher-ng;
      defaultText = lib.literalExpression "pkgs.apt-cacher-ng";
      description = "The program.";
    };

    port = mkOption {
      # It takes a higher one for a negative number, and then does not listen (3.7.4, seen).
      type = types.ints.between 1 32767;
      default = 3142;
      description = "Where it listens; it can be no port above 32767.";
    };

    addresses = mkOption {
      type = types.listOf types.str;
      default = [ "localhost" ];
      example = [
        "localhost"
        "10.99.0.11"
      ];
      description = "The addresses at which it listens. Whoever reaches one has packages of Debian through this machine.";
    };

    interfaces = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "cluster" ];
      description = "Interfaces on which the port is opened.";
    };

    mirror = mkOption {
      type = types.strMatching "https?://.+";
      default = "http://deb.debian.org/debian";
      description = "Where packages come from, such as a mirror of one's own.";
    };

    configuration = mkOption {
      type = types.package;
      readOnly = true;
      default = configuration;
      defaultText = lib.literalExpression "a directory that is made of the other options";
      description = "The directory of its configuration.";
    };

    extraConfig = mkOption {
      type = types.lines;
      default = "";
      description = "More lines of acng.conf.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion =
          cfg.addresses != [ ] && !(lib.elem "0.0.0.0" cfg.addresses) && !(lib.elem "::" cfg.addresses);
        message = "fleet.aptCache.addresses: name the addresses one by one; at every address it would be a proxy for whoever comes.";
      }
    ];
    systemd.services.apt-cacher-ng = {
      description = "Packages of Debian, kept";
      wantedBy = [ "multi-user.target" ];
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      serviceConfig = ours.hardened // {
        ExecStart = "${cfg.package}/bin/apt-cacher-ng -c ${cfg.configuration} ForeGround=1";
        DynamicUser = true;
        CacheDirectory = "apt-cacher-ng";
        LogsDirectory = "apt-cacher-ng";
        RuntimeDirectory = "apt-cacher-ng";
        Restart = "on-failure";
      };
    };
    networking.firewall.interfaces = lib.genAttrs cfg.interfaces (_: {
      allowedTCPPorts = [ cfg.port ];
    });
  };
}
