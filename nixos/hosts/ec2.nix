# A runner on EC2: the root volume, one for the pool, and one for Yocto.
{ config, lib, ... }:
let
  fleet = import ./fleet.nix;
in
{
  imports = [ ./cache-runner.nix ];
  services.snowbank.proxy = {
    kind = "caddy";
    hostName = lib.removePrefix "https://" fleet.caches.${config.networking.hostName}.url;
    # Not a public name: the internal authority issues it, and the machine's own secrets bring it.
    certificate = "files";
    certificateFile = "/run/agenix/cache-certificate";
    keyFile = "/run/agenix/cache-key";
    interfaces = [ "ens5" ];
  };
  fleet.gitlabRunner.concurrent = 4;
  fleet.aptCache = {
    enable = true;
    interfaces = [ "podman0" ];
  };
  # The third disk of the layout, which `snowbank format` makes and mounts.
  fleet.yoctoCache.enable = true;
  fleet.storage.kind = "dedicated";
  boot.loader.systemd-boot.enable = lib.mkForce false;
  boot.loader.efi.canTouchEfiVariables = false;
  # The image of an AMI knows both better.
  boot.loader.grub.device = lib.mkDefault "nodev";
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
