# Where builds of Yocto and ISAR keep what they download and what they have built, for all jobs of a machine.
{ config, lib, ... }:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  cfg = config.fleet.yoctoCache;
  variables = {
    DL_DIR = "${cfg.directory}/downloads";
    SSTATE_DIR = "${cfg.directory}/sstate";
  };
in
{
  options.fleet.yoctoCache = {
    enable = mkEnableOption "directories that builds of Yocto and ISAR share";

    directory = mkOption {
      type = types.strMatching "/.+";
      default = "/var/cache/yocto";
      description = "Where they lie; `downloads` is DL_DIR and `sstate` is SSTATE_DIR of every job.";
    };

    device = mkOption {
      type = types.nullOr (types.strMatching "/dev/disk/by-.+");
      default = null;
      example = "/dev/disk/by-partlabel/snowbank-yocto";
      description = "The volume that is mounted there, by what it is called and not by where it was found. Without it the machine goes on.";
    };

    members = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "developer" ];
      description = "Users of this machine who share them, besides the GitLab runner.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = lib.all (user: config.users.users ? ${user}) cfg.members;
        message = "fleet.yoctoCache.members: there is no user ${
          lib.concatStringsSep ", " (lib.filter (user: !(config.users.users ? ${user})) cfg.members)
        } on this machine; name users that users.users has.";
      }
    ];
    fileSystems = mkIf (cfg.device != null) {
      ${cfg.directory} = {
        inherit (cfg) device;
        fsType = "ext4";
        options = [
          "noatime"
          "nofail"
          "x-systemd.device-timeout=30s"
        ];
      };
    };
    users.groups.yocto.members = cfg.members;
    # What one job makes the next may change: the group goes from the directory to what is in it.
    systemd.tmpfiles.rules = map (directory: "d ${directory} 2775 root yocto -") [
      variables.DL_DIR
      variables.SSTATE_DIR
    ];
    # For people, and for the jobs: a service does not see what a login has.
    environment.sessionVariables = variables;
    systemd.services.gitlab-runner = mkIf config.fleet.gitlabRunner.enable {
      environment = variables;
      serviceConfig.SupplementaryGroups = [ "yocto" ];
      serviceConfig.UMask = "0002";
    };
  };
}
