# How Nix is set up on the machines of a fleet, and when its store is collected.
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
  cfg = config.fleet.nix;
  signs = cfg.signingKeyFile != null || (config.services.snowbank.enable && servesStore);
  servesStore = config.services.snowbank.settings.store != "none";
  ciUsers = [
    "gitlab-runner"
    "jenkins"
    "runner"
  ];
in
{
  options.fleet.nix = {
    enable = mkEnableOption "the settings of Nix that a fleet of runners wants";

    maxJobs = mkOption {
      type = types.either types.ints.unsigned (types.enum [ "auto" ]);
      default = "auto";
      description = "How many builds run at once.";
    };

    cores = mkOption {
      type = types.ints.unsigned;
      default = 0;
      description = "How many cores a build may use; 0 is all.";
    };

    minFreeGiB = mkOption {
      type = types.ints.unsigned;
      default = 5;
      description = "When less than this is left, Nix collects while it builds.";
    };

    maxFreeGiB = mkOption {
      type = types.ints.unsigned;
      default = 25;
      description = "Until this much is free.";
    };

    collect = {
      dates = mkOption {
        type = types.str;
        default = "weekly";
        description = "When the store is collected, as in `systemd.time(7)`.";
      };
      olderThanDays = mkOption {
        type = types.ints.positive;
        default = 30;
        description = "Generations that are older go.";
      };
      snapshot = mkOption {
        type = types.nullOr (types.strMatching "[a-zA-Z0-9][a-zA-Z0-9_.:/-]*");
        default = null;
        example = "cache/nix";
        description = ''
          The dataset that /nix/store lies on: a snapshot of it is made before each collection, and the one before that goes, so
          that what was collected by mistake is there for a while.
        '';
      };
    };

    signingKeyFile = mkOption {
      type = types.nullOr ours.secretFile;
      default = null;
      example = "/run/agenix/cache-signing-key";
      description = ''
        A secret key with which Nix signs what is built here. If the file is missing, every build fails: a cache that signs what it
        serves (`services.snowbank.signingKeyFiles`) needs none.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.minFreeGiB < cfg.maxFreeGiB;
        message = "fleet.nix: minFreeGiB (${toString cfg.minFreeGiB}) must be less than maxFreeGiB (${toString cfg.maxFreeGiB}).";
      }
      {
        assertion =
          !(signs && lib.any (user: lib.elem user (config.nix.settings.trusted-users or [ ])) ciUsers);
        message = "nix.settings.trusted-users has a user of CI on a machine that signs what it serves: any job could give a path any content, and the fleet would trust it. Take ${lib.concatStringsSep ", " ciUsers} out of it.";
      }
    ]
    ++ ours.secretsAreOutside { "fleet.nix.signingKeyFile" = cfg.signingKeyFile; };

    nix.settings = {
      experimental-features = [
        "nix-command"
        "flakes"
      ];
      max-jobs = cfg.maxJobs;
      inherit (cfg) cores;
      sandbox = true;
      auto-optimise-store = true;
      builders-use-substitutes = true;
      min-free = cfg.minFreeGiB * 1024 * 1024 * 1024;
      max-free = cfg.maxFreeGiB * 1024 * 1024 * 1024;
      # Otherwise nothing that has a derivation is ever collected.
      keep-outputs = false;
      keep-derivations = true;
    }
    // lib.optionalAttrs (cfg.signingKeyFile != null) { secret-key-files = [ cfg.signingKeyFile ]; };

    nix.gc = {
      automatic = true;
      inherit (cfg.collect) dates;
      options = "--delete-older-than ${toString cfg.collect.olderThanDays}d";
    };

    systemd.services.nix-gc = mkIf (cfg.collect.snapshot != null) {
      path = [ pkgs.zfs ];
      serviceConfig.ExecStartPre = "${pkgs.bash}/bin/bash ${../programs/snapshot-before} ${cfg.collect.snapshot}";
    };
  };
}
