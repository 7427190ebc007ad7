# refused: fleet.builders.machines.there.publicHostKey
{
  fleet.builders = {
    enable = true;
    identityFile = "/run/agenix/key";
    machines.there.hostName = "builder";
  };
}
