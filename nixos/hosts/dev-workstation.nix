# A developer's machine: it substitutes from all caches of the fleet, and serves and runs nothing.
{ lib, ... }:
let
  fleet = import ./fleet.nix;
in
{
  imports = [ ./common.nix ];
  networking.hostName = "dev-workstation";
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  services.snowbank.client = {
    enable = true;
    caches = lib.mapAttrsToList (_: cache: {
      inherit (cache) url publicKeys;
      # After cache.nixos.org, which is nearer to most desks.
      priority = 50;
    }) fleet.caches;
  };
  virtualisation.podman.enable = true;
  # What the machine boots from is its own business.
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
