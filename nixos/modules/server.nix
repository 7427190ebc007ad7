# The cache server.
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
  cfg = config.services.snowbank;

  credentials = "/run/credentials/snowbank.service";
  keys = lib.imap0 (index: file: {
    inherit file;
    name = "signing-key-${toString index}";
  }) cfg.signingKeyFiles;
  tls =
    lib.optional (cfg.tls.certificateFile != null) {
      name = "tls-certificate";
      file = cfg.tls.certificateFile;
    }
    ++ lib.optional (cfg.tls.keyFile != null) {
      name = "tls-key";
      file = cfg.tls.keyFile;
    };
  secrets = keys ++ tls;

  # What was not set is the server's own to decide.
  withoutNulls =
    value:
    if builtins.isAttrs value then
      lib.filterAttrs (_: one: one != null && one != { }) (builtins.mapAttrs (_: withoutNulls) value)
    else
      value;
  defaults = {
    data_dir = cfg.dataDir;
    listen = if cfg.socketActivation then [ "systemd" ] else cfg.listen;
    cache.default = lib.optionalAttrs (keys != [ ]) {
      signing_keys = map (key: "${credentials}/${key.name}") keys;
    };
    tls = lib.optionalAttrs (tls != [ ]) {
      certificate = "${credentials}/tls-certificate";
      key = "${credentials}/tls-key";
    };
  };
  settings = lib.recursiveUpdate (withoutNulls defaults) (withoutNulls cfg.settings);
  file = (pkgs.formats.toml { }).generate "snowbank.toml" settings;

  # Whether the server itself opens connections.
  asksOthers =
    lib.any (
      cache:
      lib.any (name: (cache.${name} or [ ]) != [ ]) [
        "peers"
        "upstreams"
        "heal_from"
      ]
    ) (builtins.attrValues (settings.cache or { }))
    || (settings.tls.certificate_from or "files") == "acme";

  # It gets its connections from systemd and opens none, so it needs no network.
  isAlone = cfg.socketActivation && !asksOthers;

  isSecure = lib.any (lib.hasPrefix "https://") cfg.listen;
  portOf = address: lib.toInt (lib.last (lib.splitString ":" address));
  isNetwork = address: !(lib.hasPrefix "unix:" address);
  opensToAll = lib.any (
    cache: (cache.push or null) == "open" && !(cache.push_open_to_network or false)
  ) (builtins.attrValues (settings.cache or { }));
in
{
  options.services.snowbank = {
    enable = mkEnableOption "Snowbank, a Nix binary cache server";

    package = mkOption {
      type = types.package;
      default = pkgs.snowbank;
      defaultText = lib.literalExpression "pkgs.snowbank";
      description = "The program.";
    };

    listen = mkOption {
      type = types.listOf (types.strMatching "(https://)?[][0-9a-fA-F.:]+:[0-9]+|unix:/.*");
      default = [ "127.0.0.1:5000" ];
      example = [ "https://0.0.0.0:5443" ];
      description = "Where to listen: an IP address with a port, the same with `https://` before it, or `unix:/absolute/path`.";
    };

    socketActivation = mkOption {
      type = types.bool;
      default = !isSecure;
      defaultText = lib.literalExpression "no address is one of https://";
      description = ''
        Whether systemd listens and hands the sockets over: then a restart of the server refuses nobody, and the server
        needs no network of its own. Not for addresses with `https://`.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the ports of `listen` are opened, on every interface; see `firewallInterfaces`.";
    };

    firewallInterfaces = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "cluster" ];
      description = "Interfaces on which the ports of `listen` are opened.";
    };

    allowedNetworks = mkOption {
      type = types.listOf (types.strMatching "[0-9a-fA-F.:]+(/[0-9]+)?");
      default = [ ];
      example = [ "10.99.0.0/24" ];
      description = ''
        If not empty, the only networks, besides the machine itself, with which the server exchanges anything: those of its clients
        and of the caches that it asks. The kernel sees to it.
      '';
    };

    dataDir = mkOption {
      type = types.strMatching "/.*";
      default = "/var/lib/snowbank";
      description = "Where the caches, the keys and the state lie.";
    };

    signingKeyFiles = mkOption {
      type = types.listOf ours.secretFile;
      default = [ ];
      example = [ "/run/agenix/cache-signing-key" ];
      description = ''
        Files of secret keys that sign what is answered, as `nix key generate-secret` writes them. Only root needs to be able
        to read them. Without any the server makes a key of its own at its first start. While one is missing the server does
        not start, and says which; the rest of the machine does.
      '';
    };

    tls = {
      certificateFile = mkOption {
        type = types.nullOr (types.strMatching "/.*");
        default = null;
        example = "/var/lib/acme/cache.example.org/fullchain.pem";
        description = "The certificate with its chain, in PEM, for addresses with `https://`.";
      };
      keyFile = mkOption {
        type = types.nullOr ours.secretFile;
        default = null;
        example = "/var/lib/acme/cache.example.org/key.pem";
        description = "Its key, in PEM.";
      };
    };

    zfs = {
      enable = mkEnableOption "caches on ZFS datasets below `settings.zfs.dataset`";
      package = mkOption {
        type = types.package;
        default = pkgs.zfs;
        defaultText = lib.literalExpression "pkgs.zfs";
        description = "The ZFS programs, of the version of the kernel module.";
      };
    };

    settings = mkOption {
      type = import ./settings.nix { inherit lib; };
      default = { };
      example = {
        cache.default.push = "token";
        cache.default.max_size = "500G";
      };
      description = "All other settings, as in the configuration file: `snowbank serve --print-example-config` shows them.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.listen != [ ];
        message = "services.snowbank.listen is empty: name at least one address, such as \"127.0.0.1:5000\".";
      }
      {
        assertion = !(cfg.socketActivation && isSecure);
        message = "services.snowbank.socketActivation: systemd hands over sockets without TLS; set it to false, or take https:// out of services.snowbank.listen.";
      }
      {
        assertion =
          isSecure
          ->
            (cfg.tls.certificateFile != null && cfg.tls.keyFile != null)
            || (cfg.settings.tls.certificate_from != null && cfg.settings.tls.certificate_from != "files")
            || cfg.settings.tls.certificate != null;
        message = "services.snowbank.listen has an address with https://, and there is no certificate: set services.snowbank.tls.certificateFile and keyFile, or settings.tls.certificate_from.";
      }
      {
        assertion = (cfg.tls.certificateFile == null) == (cfg.tls.keyFile == null);
        message = "services.snowbank.tls takes both certificateFile and keyFile, or neither.";
      }
      {
        assertion = !(cfg.socketActivation && opensToAll);
        message = "A cache of services.snowbank has push = \"open\": whoever can connect could push anything. Use \"token\", or say push_open_to_network = true as well.";
      }
      {
        assertion = cfg.zfs.enable -> cfg.settings.zfs.dataset != null;
        message = "services.snowbank.zfs.enable: name the dataset that the caches lie below, as services.snowbank.settings.zfs.dataset = \"tank/snowbank\".";
      }
      {
        assertion = cfg.settings.data_dir == null && cfg.settings.listen == null;
        message = "services.snowbank.settings: data_dir and listen are the options dataDir and listen of the module.";
      }
    ]
    ++ ours.secretsAreOutside (
      {
        "services.snowbank.tls.keyFile" = cfg.tls.keyFile;
      }
      // lib.listToAttrs (
        lib.imap0 (index: value: {
          inherit value;
          name = "services.snowbank.signingKeyFiles[${toString index}]";
        }) cfg.signingKeyFiles
      )
    );

    environment.systemPackages = [ cfg.package ];
    environment.etc."snowbank.toml".source = file;
    environment.variables.SNOWBANK_CONFIG = "/etc/snowbank.toml";

    users.users.snowbank = {
      isSystemUser = true;
      group = "snowbank";
      description = "Snowbank";
    };
    users.groups.snowbank = { };

    systemd.sockets.snowbank = mkIf cfg.socketActivation {
      description = "Sockets of the Snowbank binary cache";
      wantedBy = [ "sockets.target" ];
      listenStreams = map (lib.removePrefix "unix:") cfg.listen;
      socketConfig.SocketMode = "0660";
      socketConfig.SocketGroup = "snowbank";
    };

    systemd.services.snowbank = {
      description = "Snowbank, a Nix binary cache";
      documentation = [ "file:${cfg.package}/share/doc/snowbank/README.md" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      requires = lib.optional cfg.socketActivation "snowbank.socket";
      restartTriggers = [ file ];
      # What is missing is named in the journal, and nothing else waits for it.
      unitConfig.AssertPathExists = map (secret: secret.file) secrets;
      unitConfig.StartLimitIntervalSec = 60;
      unitConfig.StartLimitBurst = 5;
      serviceConfig =
        ours.hardened
        // {
          Type = "notify";
          ExecStart = "${lib.getExe cfg.package} serve --config ${file}";
          ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
          User = "snowbank";
          Group = "snowbank";
          LoadCredential = map (secret: "${secret.name}:${secret.file}") secrets;
          StateDirectory = mkIf (cfg.dataDir == "/var/lib/snowbank") "snowbank";
          StateDirectoryMode = "0750";
          ReadWritePaths = [ cfg.dataDir ];
          WatchdogSec = 30;
          Restart = "on-failure";
          RestartSec = 2;
          # Requests in flight have the server's own time to end.
          TimeoutStopSec = 60;
          LimitNOFILE = 65536;
          OOMScoreAdjust = -200;
          # What works behind requests gives them the right of way.
          SystemCallFilter = ours.hardened.SystemCallFilter ++ [ "setpriority" ];
          PrivateNetwork = isAlone;
          RestrictAddressFamilies = [
            "AF_UNIX"
          ]
          ++ lib.optionals (!isAlone) [
            "AF_INET"
            "AF_INET6"
          ];
          IPAddressDeny = mkIf (isAlone || cfg.allowedNetworks != [ ]) "any";
          IPAddressAllow = mkIf (!isAlone && cfg.allowedNetworks != [ ]) (
            [ "localhost" ] ++ cfg.allowedNetworks
          );
        }
        // lib.optionalAttrs cfg.zfs.enable {
          # Datasets are asked and snapshots made by the program `zfs`, with the rights that were delegated to this user;
          # to a user namespace ZFS shows no datasets. How a pool is stands in /proc/spl.
          PrivateUsers = false;
          ProcSubset = "all";
          DeviceAllow = [ "/dev/zfs rw" ];
          BindPaths = [ "-/dev/zfs" ];
        };
      path = lib.optional cfg.zfs.enable cfg.zfs.package;
    };

    # Makes the datasets that are missing and delegates them, as root, and is done; the server itself is never root.
    systemd.services.snowbank-zfs-init = mkIf cfg.zfs.enable {
      description = "Datasets of the Snowbank binary cache";
      requiredBy = [ "snowbank.service" ];
      before = [ "snowbank.service" ];
      after = [ "zfs.target" ];
      requires = [ "zfs.target" ];
      path = [ cfg.zfs.package ];
      restartTriggers = [ file ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${lib.getExe cfg.package} zfs init --config ${file} --user snowbank";
      };
    };

    networking.firewall =
      let
        ports = map portOf (lib.filter isNetwork cfg.listen);
      in
      {
        allowedTCPPorts = lib.optionals cfg.openFirewall ports;
        interfaces = lib.genAttrs cfg.firewallInterfaces (_: {
          allowedTCPPorts = ports;
        });
      };
  };
}
