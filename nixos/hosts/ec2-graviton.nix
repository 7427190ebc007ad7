{
  imports = [ ./ec2.nix ];
  networking.hostName = "ec2-graviton";
  nixpkgs.hostPlatform = "aarch64-linux";
  fleet.peers = [
    "ec2-x86_64"
    "on-prem-runner"
  ];
  fleet.storage = {
    hostId = "5e1c0a02";
    layout.disk.cache.serial = "vol0b0b0000000000000a";
    layout.disk.yocto.serial = "vol0b0b0000000000000b";
  };
}
