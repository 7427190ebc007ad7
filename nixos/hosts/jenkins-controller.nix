# A Jenkins whose builds run on a machine that is there: see vm-builder.
{ lib, ... }:
let
  fleet = import ./fleet.nix;
in
{
  imports = [ ./guest.nix ];
  networking.hostName = lib.mkDefault "jenkins-controller";
  # Its plugins: `resolve-jenkins-plugins configuration-as-code git workflow-aggregator > jenkins-plugins.json`, and that as
  # pluginsFile, with adminPasswordFile beside it.
  fleet.jenkins.enable = true;
  fleet.builders = {
    enable = true;
    identityFile = "/run/agenix/builder-key";
    machines.x86 = {
      hostName = lib.mkDefault "vm-builder.${fleet.domain}";
      # An example, whose key nobody has.
      publicHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDeoFU/Mv4pyNIPNj3vhJKFOO7lsMxNRkDYJWdi0RhW+";
      maxJobs = 8;
    };
  };
}
