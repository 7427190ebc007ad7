# refused: fleet.builders.machines is empty
{
  fleet.builders = {
    enable = true;
    identityFile = "/run/agenix/key";
  };
}
