{
  imports = [ ./ec2.nix ];
  networking.hostName = "ec2-x86_64";
  nixpkgs.hostPlatform = "x86_64-linux";
  fleet.peers = [
    "ec2-graviton"
    "on-prem-runner"
  ];
  fleet.storage = {
    hostId = "5e1c0a01";
    layout.disk.cache.serial = "vol0a11ce0000000000a";
    layout.disk.yocto.serial = "vol0a11ce0000000000b";
  };
}
