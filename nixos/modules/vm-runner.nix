# A virtual machine that is a GitLab runner for so many jobs and then is gone.
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
  cfg = config.fleet.vmRunner;
  program = "${pkgs.bash}/bin/bash ${../programs/vm-runner}";
  isEnv = cfg.envFile != null;
in
{
  options.fleet.vmRunner = {
    enable = mkEnableOption "a GitLab runner whose machine is switched off after its jobs";

    info = mkOption {
      default = "virtiofs";
      type = types.enum [
        "virtiofs"
        "disk"
        "none"
      ];
      description = ''
        How `/runner-info`, with `runner.json` in it, comes into the machine: a virtiofs share of the tag `runner-info`, a disk (such as
        KubeVirt makes of a Secret) with the label `runner-info`, or in no such way.
      '';
    };

    envFile = mkOption {
      type = types.nullOr (types.strMatching "/.*");
      default = null;
      example = "/etc/gitlab-runner-env";
      description = "A file that a start-up script writes, owned by the user `runner` and of mode 600, with `CI_SERVER_URL=…` and `CI_SERVER_TOKEN=…`, in the place of `runner.json`.";
    };

    wait = mkOption {
      type = types.ints.positive;
      default = 300;
      description = "Seconds that either may take to come.";
    };

    jobs = mkOption {
      type = types.ints.positive;
      default = 1;
      description = "After how many jobs the machine is switched off. `/etc/keep-runner` keeps it on.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = isEnv == (cfg.info == "none");
        message = "fleet.vmRunner takes its token from one place: set envFile and info = \"none\", or leave envFile out.";
      }
      {
        assertion = !config.fleet.gitlabRunner.enable;
        message = "fleet.vmRunner and fleet.gitlabRunner are two runners on one machine, and the first switches it off: enable one of them.";
      }
    ];

    users.users.runner = {
      isNormalUser = true;
      description = "Runs the jobs";
      home = "/home/runner";
      createHome = true;
    };

    fileSystems = mkIf (cfg.info != "none") {
      "/runner-info" = {
        device = if cfg.info == "virtiofs" then "runner-info" else "/dev/disk/by-label/runner-info";
        fsType = if cfg.info == "virtiofs" then "virtiofs" else "iso9660";
        options = [
          "ro"
          # Nothing waits for it but the runner, which says what is missing.
          "nofail"
          "x-systemd.device-timeout=${toString cfg.wait}s"
        ];
      };
    };

    systemd.services.vm-runner = {
      description = "A GitLab runner for ${toString cfg.jobs} jobs";
      wantedBy = [ "multi-user.target" ];
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      path = [
        pkgs.bash
        pkgs.git
        pkgs.gitlab-runner
        pkgs.jq
        pkgs.nix
      ];
      unitConfig.RequiresMountsFor = mkIf (cfg.info != "none") "/runner-info";
      serviceConfig = {
        Type = "exec";
        User = "runner";
        RuntimeDirectory = "vm-runner";
        RuntimeDirectoryMode = "0700";
        # What was noted there says after the end whether anything had registered.
        RuntimeDirectoryPreserve = true;
        WorkingDirectory = "/home/runner";
        ExecStart = "${program} run --wait ${toString cfg.wait} --jobs ${toString cfg.jobs}${lib.optionalString isEnv " --env-file ${cfg.envFile}"}";
        # As root, however it ended; a user may not switch the machine off.
        ExecStopPost = "+${program} power-off";
        Restart = "no";
        # A job that runs is let end.
        TimeoutStopSec = "1h";
        KillMode = "mixed";
      };
    };
  };
}
