# A Jenkins that is reached on loopback alone, has its plugins from a file with their hashes, and its configuration from
# here. What it builds with Nix goes where `fleet.builders` says.
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
    mkMerge
    mkOption
    types
    ;
  ours = import ./lib.nix { inherit lib; };
  cfg = config.fleet.jenkins;
  json = pkgs.formats.json { };
  credentials = "/run/credentials/jenkins.service";
  plugins = builtins.fromJSON (builtins.readFile cfg.pluginsFile);
  isConfigured = cfg.pluginsFile != null;
in
{
  options.fleet.jenkins = {
    enable = mkEnableOption "a Jenkins controller on loopback: `ssh -L 8081:127.0.0.1:8081` leads to it, or a proxy";

    port = mkOption {
      type = types.port;
      default = 8081;
      description = "Where it listens on 127.0.0.1.";
    };

    pluginsFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./jenkins-plugins.json";
      description = ''
        The plugins, each with its version, address and hash, as `resolve-jenkins-plugins` writes them. All others are removed. Without it
        Jenkins asks at its first start, with the password in `/var/lib/jenkins/secrets/initialAdminPassword`.
      '';
    };

    adminPasswordFile = mkOption {
      type = types.nullOr ours.secretFile;
      default = null;
      example = "/run/agenix/jenkins-admin";
      description = "The password of the user `admin`; needed with `pluginsFile`.";
    };

    configuration = mkOption {
      inherit (json) type;
      default = { };
      example.jenkins.numExecutors = 8;
      description = ''
        The configuration as code, beside what is set here: the user `admin`, nothing for who is not signed in. A secret is
        `''${name}` for a credential `name` of `systemd.services.jenkins`.
      '';
    };

    pipelines = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = lib.literalExpression "{ nightly = ./nightly.groovy; }";
      description = "Pipelines, put at `/etc/jenkins/pipelines/NAME`.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = isConfigured -> cfg.adminPasswordFile != null;
          message = "fleet.jenkins: with pluginsFile nobody is asked for a password; set adminPasswordFile.";
        }
        {
          assertion = isConfigured -> plugins ? configuration-as-code;
          message = "fleet.jenkins.pluginsFile: the plugin configuration-as-code is not in it, and without it the configuration is not read; name it to resolve-jenkins-plugins.";
        }
        {
          assertion = cfg.configuration != { } -> isConfigured;
          message = "fleet.jenkins.configuration is read by a plugin: set pluginsFile.";
        }
        {
          assertion = !builtins.elem "jenkins" (config.nix.settings.trusted-users or [ ]);
          message = "nix.settings.trusted-users: whoever changes a job could put any path into the store; leave jenkins out.";
        }
      ]
      ++ ours.secretsAreOutside { "fleet.jenkins.adminPasswordFile" = cfg.adminPasswordFile; };

      services.jenkins = {
        enable = true;
        listenAddress = "127.0.0.1";
        inherit (cfg) port;
        packages = [
          pkgs.bash
          pkgs.coreutils
          pkgs.git
          pkgs.nix
          pkgs.openssh
        ];
      };
      environment.etc = lib.mapAttrs' (
        name: file: lib.nameValuePair "jenkins/pipelines/${name}" { source = file; }
      ) cfg.pipelines;
      systemd.services.jenkins.serviceConfig = {
        Restart = "on-failure";
        RestartSec = 10;
      };
    }
    (mkIf isConfigured {
      services.jenkins = {
        plugins = builtins.mapAttrs (
          name: plugin:
          pkgs.fetchurl {
            name = "${name}-${plugin.version}.jpi";
            inherit (plugin) url hash;
          }
        ) plugins;
        extraJavaOptions = [ "-Djenkins.install.runSetupWizard=false" ];
        environment = {
          CASC_JENKINS_CONFIG = toString (json.generate "jenkins.json" cfg.configuration);
          SECRETS = credentials;
        };
      };
      systemd.services.jenkins.serviceConfig.LoadCredential = lib.optional (
        cfg.adminPasswordFile != null
      ) "admin-password:${cfg.adminPasswordFile}";
      fleet.jenkins.configuration = {
        jenkins = {
          numExecutors = lib.mkDefault 4;
          securityRealm.local = {
            allowsSignup = false;
            users = [
              {
                id = "admin";
                password = "\${admin-password}";
              }
            ];
          };
          authorizationStrategy.loggedInUsersCanDoAnything.allowAnonymousRead = lib.mkDefault false;
        };
        unclassified.location.url = lib.mkDefault "http://127.0.0.1:${toString cfg.port}/";
      };
    })
  ]);
}
