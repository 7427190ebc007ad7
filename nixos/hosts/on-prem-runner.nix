# Bare metal with KVM, a management network and a lab network.
{ lib, ... }:
let
  fleet = import ./fleet.nix;
in
{
  imports = [ ./cache-runner.nix ];
  networking.hostName = "on-prem-runner";
  nixpkgs.hostPlatform = "x86_64-linux";
  fleet.peers = [
    "ec2-x86_64"
    "ec2-graviton"
  ];

  services.snowbank.proxy = {
    kind = "nginx";
    hostName = lib.removePrefix "https://" fleet.caches.on-prem-runner.url;
    certificate = "files";
    certificateFile = "/run/agenix/cache-certificate";
    keyFile = "/run/agenix/cache-key";
    interfaces = [ "mgmt" ];
  };
  fleet.gitlabRunner.concurrent = 1;
  fleet.yoctoCache.enable = true;
  fleet.storage = {
    kind = "single-disk";
    hostId = "5e1c0a03";
    layout.disk.system.device = "/dev/disk/by-id/nvme-EXAMPLE_DISK_S4XYNF0M123456";
  };

  # Whichever processor it has.
  boot.kernelModules = [
    "kvm-intel"
    "kvm-amd"
  ];
  hardware.enableRedistributableFirmware = true;
  hardware.cpu.intel.updateMicrocode = true;
  hardware.cpu.amd.updateMicrocode = true;
  virtualisation.libvirtd.enable = true;
  users.groups.kvm.members = [ "gitlab-runner" ];

  networking.useNetworkd = true;
  networking.useDHCP = false;
  systemd.network.enable = true;
  systemd.network.networks."10-mgmt" = {
    matchConfig.Name = "mgmt";
    networkConfig.DHCP = "ipv4";
    dhcpV4Config.RouteMetric = 100;
  };
  systemd.network.networks."20-lab" = {
    matchConfig.Name = "lab";
    networkConfig.Address = "192.168.50.1/24";
  };
  # Where disko makes the disks it says this itself.
  fileSystems."/" = lib.mkDefault {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
