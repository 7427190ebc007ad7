# A golden image for Proxmox: cloned, and told by cloud-init who it is.
{
  imports = [
    ./guest.nix
    ./cloud-init.nix
  ];
  networking.hostName = "golden";
  # It boots by UEFI.
  image.modules.proxmox.proxmox.qemuConf.bios = "ovmf";
  fileSystems."/boot" = {
    device = "/dev/disk/by-label/ESP";
    fsType = "vfat";
    options = [ "umask=0077" ];
  };
}
