# refused: each has either a hostName, where it is, or ephemeral
{
  fleet.builders = {
    enable = true;
    identityFile = "/run/agenix/key";
    machines.there.publicHostKey = "ssh-ed25519 AAAA";
  };
}
