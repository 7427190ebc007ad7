{ config, ... }:
{
  fleet.builders = {
    enable = true;
    identityFile = "/run/agenix/builder-key";
    machines.there = {
      hostName = "builder.example.org";
      publicHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGLK1Hs3eESeW6fVn52H2d0qYq+ijX+DjhKRmzrfvicH";
    };
    machines.gone = {
      publicHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGLK1Hs3eESeW6fVn52H2d0qYq+ijX+DjhKRmzrfvicH";
      ephemeral = {
        host = "root@far";
        machine = "/nix/store/0c5p1gm5v1cwwdgz2vfqwdlkyjrkh2l5-vm/bin/run-vm-builder-vm";
        port = 3022;
      };
    };
  };
  assertions = [
    {
      assertion =
        map (one: one.hostName) config.nix.buildMachines == [
          "builder-gone"
          "builder.example.org"
        ];
      message = "the builders are not those that were named";
    }
    {
      # Where it means something.
      assertion =
        config.systemd.services.ephemeral-builder-gone.unitConfig ? StartLimitIntervalSec
        && !(config.systemd.services.ephemeral-builder-gone.serviceConfig ? StartLimitIntervalSec);
      message = "StartLimitIntervalSec is in [Service]";
    }
  ];
}
