# A runner in a virtual machine of KubeVirt: what to register as comes on a disk made of a Secret.
{
  imports = [
    ./guest.nix
    ./cloud-init.nix
  ];
  networking.hostName = "kubevirt-runner";
  fleet.vmRunner = {
    enable = true;
    info = "disk";
  };
}
