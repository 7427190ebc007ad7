# What every virtual machine has that is there for its jobs alone, wherever it runs.
{ lib, pkgs, ... }:
let
  fleet = import ./fleet.nix;
in
{
  imports = [ ./common.nix ];
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";

  # What was built once for the fleet is not built again here.
  services.snowbank.client = {
    enable = true;
    caches = lib.mapAttrsToList (_: cache: {
      inherit (cache) url publicKeys;
      priority = 10;
    }) fleet.caches;
  };
  services.qemuGuest.enable = true;
  services.openssh.enable = true;
  boot.growPartition = true;
  boot.kernelParams = [ "console=ttyS0" ];
  boot.kernel.sysctl = {
    "vm.swappiness" = 10;
    "fs.inotify.max_user_watches" = 1048576;
  };
  zramSwap.enable = true;
  environment.systemPackages = [
    pkgs.curl
    pkgs.gitlab-runner
  ];
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
    autoResize = true;
  };
}
