# The disks: one layout, for `snowbank format` at each boot and for disko at the installation.
{
  config,
  lib,
  options,
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
  cfg = config.fleet.storage;
  base = builtins.fromTOML (builtins.readFile ../layouts/${cfg.kind}.toml);
  layout = lib.recursiveUpdate base cfg.layout;
  disks = layout.disk;
  placeholders = [
    "vol0123456789abcdef0"
    "vol0fedcba9876543210"
    "/dev/disk/by-id/nvme-eui.0025388b01234567"
  ];
  identity = disk: disk.device or disk.serial or disk.partlabel or null;
  forgotten = lib.filter (name: lib.elem (identity disks.${name}) placeholders) (
    builtins.attrNames disks
  );
  kernelName =
    name:
    builtins.match "/dev/(nvme[0-9]+n[0-9]+|[sv]d[a-z]+|xvd[a-z]+).*" (disks.${name}.device or "")
    != null;
  file = (pkgs.formats.toml { }).generate "layout.toml" layout;
in
{
  options.fleet.storage = {
    enable = mkEnableOption "disks that are made as a layout says, at the first boot and looked at in every other";

    kind = mkOption {
      type = types.enum [
        "dedicated"
        "single-disk"
      ];
      default = "dedicated";
      description = ''
        Which layout to start from: `dedicated` is a disk of its own for the pool, beside the one that the system boots from;
        `single-disk` has the boot partition, the root and the pool on one. `snowbank format --print-example` explains both.
      '';
    };

    layout = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example = {
        disk.cache.serial = "vol0a1b2c3d4e5f60718";
        dataset."snowbank/default".quota = "400G";
      };
      description = "What differs from that layout, in its own form: above all how the disks are told from others.";
    };

    file = mkOption {
      type = types.package;
      readOnly = true;
      default = file;
      description = "The layout as a file.";
    };

    hostId = mkOption {
      type = types.strMatching "[0-9a-f]{8}";
      example = "8f3a1c02";
      description = "What a pool knows this machine by: eight digits, another for each machine (`head -c4 /dev/urandom | od -A none -t x4`).";
    };
  };

  config = mkIf cfg.enable (
    {
      assertions = [
        {
          assertion = forgotten == [ ];
          message = "fleet.storage.layout.disk.${lib.head (forgotten ++ [ "" ])} is the one of the example: say which disk is meant, by device (a link below /dev/disk/by-id) or serial.";
        }
        {
          assertion = !(lib.any kernelName (builtins.attrNames disks));
          message = "fleet.storage.layout: a disk is named as the kernel names it, and at the next boot another may have that name; use its link below /dev/disk/by-id, or its serial.";
        }
        {
          assertion = cfg.hostId != "00000000" && cfg.hostId != "deadbeef";
          message = "fleet.storage.hostId is ${cfg.hostId}, which others have as well: make one for this machine.";
        }
      ];
      networking.hostId = cfg.hostId;
      boot.supportedFilesystems.zfs = true;
      boot.zfs.extraPools = [ ];
      # A pool that another machine may use is not taken by force.
      boot.zfs.forceImportRoot = false;
      services.zfs.autoScrub.enable = true;
      services.zfs.trim.enable = false;

      # Nothing that the system boots from waits for it: what it makes is only for what comes after.
      systemd.services.snowbank-format = {
        description = "Disks, pool and datasets of the cache";
        wantedBy = [ "multi-user.target" ];
        requiredBy = lib.optional config.services.snowbank.enable "snowbank.service";
        before = [
          "snowbank.service"
          "snowbank-zfs-init.service"
        ];
        after = [
          "local-fs.target"
          "systemd-modules-load.service"
        ];
        path = [
          pkgs.dosfstools
          pkgs.e2fsprogs
          pkgs.util-linux
          pkgs.zfs
        ];
        restartTriggers = [ cfg.file ];
        unitConfig.DefaultDependencies = true;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${lib.getExe config.services.snowbank.package} format --layout ${cfg.file}";
          # Volumes are attached while the machine boots.
          TimeoutStartSec = "15min";
        };
      };
    }
    // lib.optionalAttrs (options ? disko) {
      disko.devices = import ./disko.nix { inherit lib layout; };
    }
  );
}
