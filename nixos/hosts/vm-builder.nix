# A machine that builds for others and has nothing else: started on some host, reached by ssh, and gone.
{ lib, ... }:
{
  imports = [ ./guest.nix ];
  networking.hostName = "vm-builder";
  users.users.builder = {
    isNormalUser = true;
    description = "Builds for others";
    # Put the key here with which the nix-daemon of the controller comes.
    openssh.authorizedKeys.keys = [ ];
  };
  # It signs nothing, so what is sent to it need not be signed by anybody it knows.
  nix.settings.trusted-users = [ "builder" ];
  # As many as there are cores: the machine has nothing else to do.
  fleet.nix.maxJobs = "auto";
  services.openssh.settings.AllowUsers = lib.mkDefault [ "builder" ];
}
