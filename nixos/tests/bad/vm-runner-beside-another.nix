# refused: are two runners on one machine
{
  fleet.vmRunner.enable = true;
  fleet.gitlabRunner = {
    enable = true;
    tokenFile = "/run/agenix/runner";
  };
}
