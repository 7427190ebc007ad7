# What the example hosts have in common: who is there, and with which keys they sign. A fleet of one's own begins with a
# copy of this file; the keys here were made for it and are of no use elsewhere.
{
  domain = "n3x.internal";
  caches = {
    ec2-x86_64 = {
      url = "https://cache.ec2-x86-64.n3x.internal";
      publicKeys = [ "ec2-x86_64-1:0rcLzfzZSerEW2KCtgdefHvuEBQ9MYifZieumUKN2ng=" ];
    };
    ec2-graviton = {
      url = "https://cache.ec2-graviton.n3x.internal";
      publicKeys = [ "ec2-graviton-1:w+xxPnbxKL3oZRf4WrALLjQ78BwiexcIC5r3tASIVzc=" ];
    };
    on-prem-runner = {
      url = "https://cache.on-prem-runner.n3x.internal";
      publicKeys = [ "on-prem-runner-1:30yvDwJ9kxlHjViMKxcmdFzpOWOwvwkAKZqswBqGTiU=" ];
    };
    zfs-proto-1 = {
      url = "https://cache.zfs-proto-1.n3x.internal:5443";
      address = "10.99.0.11";
      publicKeys = [ "zfs-proto-1-1:M5qFzar23fdYqICSeK2BLwxZNt7VvHKwQRex6pw0LuI=" ];
    };
    zfs-proto-2 = {
      url = "https://cache.zfs-proto-2.n3x.internal:5443";
      address = "10.99.0.12";
      publicKeys = [ "zfs-proto-2-1:3Dgjx0/dFLl1e8giMlefiVENbb/NXgIbe396W4leFXk=" ];
    };
    zfs-proto-3 = {
      url = "https://cache.zfs-proto-3.n3x.internal:5443";
      address = "10.99.0.13";
      publicKeys = [ "zfs-proto-3-1:Oy+NA1XWaaVeU9AnNf2LSiH96l1T0AFYVLwXW3GKIyc=" ];
    };
  };
}
