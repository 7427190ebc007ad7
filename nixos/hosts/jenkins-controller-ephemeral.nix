# A Jenkins whose builders are started on another host, for as long as it runs.
{
  imports = [ ./jenkins-controller.nix ];
  networking.hostName = "jenkins-controller-ephemeral";
  fleet.builders.machines = {
    x86 = {
      hostName = null;
      ephemeral = {
        host = "builders@on-prem-runner.n3x.internal";
        # Where `nix copy` has put the machine of vm-builder, with a root that keeps it there.
        machine = "/var/lib/builders/vm-builder/bin/run-vm-builder-vm";
        port = 3022;
      };
    };
    arm = {
      systems = [ "aarch64-linux" ];
      # An example, whose key nobody has.
      publicHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEZ1JKhe26Ocm8mQFC4nh2TdWFcSTW8Lg0SLmRGjOycW";
      ephemeral = {
        host = "builders@ec2-graviton.n3x.internal";
        machine = "/var/lib/builders/vm-builder/bin/run-vm-builder-vm";
        port = 4022;
      };
    };
  };
}
