# refused: virtualisation.qemu
# refused: does not exist
{ virtualisation.qemu.guestAgent.enable = true; }
