# A GitLab runner whose jobs use the Nix of the machine.
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
  cfg = config.fleet.gitlabRunner;
  isDocker = cfg.executor == "docker";
in
{
  options.fleet.gitlabRunner = {
    enable = mkEnableOption "a GitLab runner";

    name = mkOption {
      type = types.strMatching "[a-zA-Z0-9_-]+";
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      description = "What it is called here.";
    };

    tokenFile = mkOption {
      type = types.nullOr ours.secretFile;
      default = null;
      example = "/run/agenix/gitlab-runner";
      description = ''
        A file with `CI_SERVER_URL=…` and `CI_SERVER_TOKEN=glrt-…`, the token of a runner that was made in GitLab. Its tags, and
        whether it takes jobs without any, are set there, too: a runner with such a token cannot set them itself.
      '';
    };

    executor = mkOption {
      type = types.enum [
        "shell"
        "docker"
      ];
      default = "shell";
      description = ''
        `shell` runs jobs as the user of the runner; `docker` in containers that have the store of the machine, read-only, and the
        socket of its nix-daemon.
      '';
    };

    image = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "alpine:3.22";
      description = "The image of jobs that name none, for `docker`.";
    };

    concurrent = mkOption {
      type = types.ints.positive;
      default = 2;
      description = "How many jobs run at once.";
    };

    packages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Programs that jobs of the shell executor find, besides Nix, git and the usual ones.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.tokenFile != null;
        message = "fleet.gitlabRunner.tokenFile is not set, so there would be no runner: name the file with CI_SERVER_URL and CI_SERVER_TOKEN.";
      }
      {
        assertion = isDocker -> cfg.image != null;
        message = "fleet.gitlabRunner.executor is \"docker\": set fleet.gitlabRunner.image, for jobs that name none.";
      }
    ]
    ++ ours.secretsAreOutside { "fleet.gitlabRunner.tokenFile" = cfg.tokenFile; };

    services.gitlab-runner = {
      enable = true;
      settings.concurrent = cfg.concurrent;
      gracefulTermination = true;
      extraPackages = [
        pkgs.bash
        pkgs.git
        pkgs.gnutar
        pkgs.gzip
        pkgs.nix
        pkgs.openssh
      ]
      ++ cfg.packages;
      services.${cfg.name} = {
        authenticationTokenConfigFile = cfg.tokenFile;
        inherit (cfg) executor;
        environmentVariables = {
          NIX_REMOTE = "daemon";
        }
        // lib.optionalAttrs isDocker {
          PATH = "${pkgs.nix}/bin:/bin:/usr/bin:/sbin:/usr/sbin";
          NIX_SSL_CERT_FILE = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";
        };
      }
      // lib.optionalAttrs isDocker {
        dockerImage = cfg.image;
        # A job may build and read, and has neither the database nor the machine: not privileged, and no socket of Docker.
        dockerVolumes = [
          "/nix/store:/nix/store:ro"
          "/nix/var/nix/db:/nix/var/nix/db:ro"
          "/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket:ro"
        ];
      };
    };
    virtualisation.docker.enable = mkIf isDocker true;

    systemd.services.gitlab-runner = {
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      unitConfig.AssertPathExists = [ cfg.tokenFile ];
      # What jobs need of setuid, such as newuidmap for rootless containers, is there and nowhere else.
      environment.PATH = lib.mkForce "/run/wrappers/bin:${lib.makeBinPath config.services.gitlab-runner.extraPackages}:/run/current-system/sw/bin";
    };
  };
}
