# A runner on GCE: a start-up script writes the token, from the metadata or better from a secret manager.
{
  imports = [ ./guest.nix ];
  networking.hostName = "gce-runner";
  fleet.vmRunner = {
    enable = true;
    info = "none";
    envFile = "/etc/gitlab-runner-env";
  };
}
