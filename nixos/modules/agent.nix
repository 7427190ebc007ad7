# A machine whose builds are pushed: the hook notes them, an agent sends them.
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
  cfg = config.services.snowbank.agent;
  spool = "/var/spool/snowbank";
  roots = "/nix/var/nix/gcroots/snowbank";
in
{
  options.services.snowbank.agent = {
    enable = mkEnableOption "pushing what is built here to a cache";

    package = mkOption {
      type = types.package;
      default = pkgs.snowbank;
      defaultText = lib.literalExpression "pkgs.snowbank";
      description = "The program.";
    };

    to = mkOption {
      type = types.strMatching "https?://[^[:space:]]+";
      example = "https://cache.example.org";
      description = "The server, or a cache on it.";
    };

    cache = mkOption {
      type = types.nullOr (types.strMatching "[a-z0-9][a-z0-9-]*");
      default = null;
      example = "team";
      description = "The cache on that server, if it is not the default one.";
    };

    tokenFile = mkOption {
      type = types.nullOr ours.secretFile;
      default = null;
      example = "/run/agenix/push-token";
      description = ''
        The file with the token that may push. While it is missing the agent does not run, and says so; builds go on, and
        what they make waits in the queue.
      '';
    };

    hook = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether each build is put into the queue, by the `post-build-hook` of the nix-daemon. The hook writes one small file and
        never fails a build, whether the agent or the cache is there or not.
      '';
    };

    listen = mkOption {
      type = types.nullOr (types.strMatching "[][0-9a-fA-F.:]+:[0-9]+");
      default = "127.0.0.1:9100";
      description = "Where the agent answers `/metrics` and `/health`; nowhere if null.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.hook -> config.nix.enable;
        message = "services.snowbank.agent.hook: there is no Nix on this machine (nix.enable = false) whose builds could be queued.";
      }
    ]
    ++ ours.secretsAreOutside { "services.snowbank.agent.tokenFile" = cfg.tokenFile; };

    environment.systemPackages = [ cfg.package ];
    nix.settings = mkIf cfg.hook { post-build-hook = "${cfg.package}/bin/snowbank-hook"; };

    systemd.tmpfiles.rules = [
      "d ${spool} 0700 root root -"
      "d ${roots} 0755 root root -"
    ];

    systemd.services.snowbank-agent = {
      description = "Pushes what was built to a binary cache";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      unitConfig.AssertPathExists = lib.optional (cfg.tokenFile != null) cfg.tokenFile;
      serviceConfig = ours.hardened // {
        ExecStart = lib.escapeShellArgs (
          [
            (lib.getExe cfg.package)
            "agent"
            "--to"
            cfg.to
            "--spool"
            spool
            "--roots"
            roots
          ]
          ++ lib.optionals (cfg.cache != null) [
            "--cache"
            cfg.cache
          ]
          ++ lib.optionals (cfg.listen != null) [
            "--listen"
            cfg.listen
          ]
          ++ lib.optionals (cfg.tokenFile != null) [
            "--token-file"
            "/run/credentials/snowbank-agent.service/token"
          ]
        );
        LoadCredential = lib.optional (cfg.tokenFile != null) "token:${cfg.tokenFile}";
        # The queue is root's, since the nix-daemon writes it; of root's powers nothing is left but that.
        User = "root";
        ReadWritePaths = [
          spool
          roots
        ];
        Restart = "always";
        RestartSec = 5;
        Nice = 10;
        IOSchedulingClass = "idle";
      };
    };
  };
}
