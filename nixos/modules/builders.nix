# Builders elsewhere: machines that are there, and such as are started on another host for as long as they are wanted.
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
  cfg = config.fleet.builders;
  ephemeral = lib.filterAttrs (_: builder: builder.ephemeral != null) cfg.machines;
  ports = lib.mapAttrsToList (_: builder: builder.ephemeral.port) ephemeral;

  nameOf = name: if ephemeral ? ${name} then "builder-${name}" else cfg.machines.${name}.hostName;
in
{
  options.fleet.builders = {
    enable = mkEnableOption "building on other machines";

    identityFile = mkOption {
      type = ours.secretFile;
      example = "/run/agenix/builder-key";
      description = "The key of ssh with which the nix-daemon comes to them.";
    };

    localJobs = mkOption {
      type = types.ints.unsigned;
      default = 0;
      description = "How many builds run here as well.";
    };

    machines = mkOption {
      default = { };
      description = "The builders, by name.";
      type = types.attrsOf (
        types.submodule {
          options = {
            hostName = mkOption {
              type = types.nullOr (types.strMatching "[a-zA-Z0-9.-]+");
              default = null;
              description = "Where it is; not for one that is ephemeral.";
            };
            user = mkOption {
              type = types.str;
              default = "builder";
              description = "As whom one comes to it.";
            };
            publicHostKey = mkOption {
              type = types.strMatching "ssh-ed25519 [A-Za-z0-9+/=]+";
              description = "The key of its sshd: no other machine is taken for it.";
            };
            systems = mkOption {
              type = types.nonEmptyListOf types.str;
              default = [ "x86_64-linux" ];
              description = "What it builds for.";
            };
            maxJobs = mkOption {
              type = types.ints.positive;
              default = 4;
              description = "How many builds it runs at once.";
            };
            features = mkOption {
              type = types.listOf types.str;
              default = [
                "big-parallel"
                "kvm"
              ];
              description = "What it can that not every machine can.";
            };
            ephemeral = mkOption {
              default = null;
              description = "Where and how it is started; null for one that is there.";
              type = types.nullOr (
                types.submodule {
                  options = {
                    host = mkOption {
                      type = types.strMatching "[a-zA-Z0-9_][a-zA-Z0-9_.@:-]*";
                      description = "The host on which it runs, as root's ssh here knows it.";
                    };
                    machine = mkOption {
                      type = types.strMatching "/.+";
                      description = "The program there that runs it: `bin/run-…-vm` of a host of a flake, copied there by `nix copy`.";
                    };
                    port = mkOption {
                      type = types.port;
                      description = "The port here that leads to it, another for each.";
                    };
                  };
                }
              );
            };
          };
        }
      );
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.machines != { };
        message = "fleet.builders.machines is empty: name a builder, or do not enable them.";
      }
      {
        assertion = lib.all (builder: (builder.hostName == null) != (builder.ephemeral == null)) (
          builtins.attrValues cfg.machines
        );
        message = "fleet.builders.machines: each has either a hostName, where it is, or ephemeral, where it is started.";
      }
      {
        assertion = lib.length (lib.unique ports) == lib.length ports;
        message = "fleet.builders.machines: two that are ephemeral have one port here.";
      }
    ]
    ++ ours.secretsAreOutside { "fleet.builders.identityFile" = cfg.identityFile; };

    nix.distributedBuilds = true;
    nix.settings = {
      builders-use-substitutes = true;
      max-jobs = lib.mkForce cfg.localJobs;
    };
    nix.buildMachines = lib.mapAttrsToList (name: builder: {
      hostName = nameOf name;
      protocol = "ssh-ng";
      sshUser = builder.user;
      sshKey = cfg.identityFile;
      inherit (builder) systems maxJobs;
      supportedFeatures = builder.features;
    }) cfg.machines;

    programs.ssh.knownHosts = lib.mapAttrs' (
      name: builder:
      lib.nameValuePair "builder-${name}" {
        hostNames = [
          (
            if builder.ephemeral == null then
              builder.hostName
            else
              "[127.0.0.1]:${toString builder.ephemeral.port}"
          )
        ];
        publicKey = builder.publicHostKey;
      }
    ) cfg.machines;
    programs.ssh.extraConfig = lib.concatStrings (
      lib.mapAttrsToList (name: builder: ''
        Host builder-${name}
          HostName 127.0.0.1
          Port ${toString builder.ephemeral.port}
      '') ephemeral
    );

    systemd.services = lib.mapAttrs' (
      name: builder:
      lib.nameValuePair "ephemeral-builder-${name}" {
        description = "The builder ${name}, on ${builder.ephemeral.host}";
        after = [ "network-online.target" ];
        wants = [ "network-online.target" ];
        wantedBy = [ "multi-user.target" ];
        path = [
          pkgs.bash
          pkgs.coreutils
          pkgs.openssh
          pkgs.systemd
        ];
        unitConfig = {
          StartLimitIntervalSec = 300;
          StartLimitBurst = 3;
        };
        serviceConfig = {
          # It is started once the builder answers.
          Type = "notify";
          NotifyAccess = "all";
          ExecStart = "${pkgs.bash}/bin/bash ${../programs/ephemeral-builder} --host ${builder.ephemeral.host} --machine ${builder.ephemeral.machine} --port ${toString builder.ephemeral.port}";
          Restart = "on-failure";
          RestartSec = 10;
          TimeoutStartSec = 330;
          # Its state over there is removed before it has ended.
          TimeoutStopSec = 60;
          KillMode = "mixed";
          PrivateTmp = true;
        };
      }
    ) ephemeral;
  };
}
