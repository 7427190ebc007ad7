# refused: set fleet.gitlabRunner.image
{
  fleet.gitlabRunner = {
    enable = true;
    executor = "docker";
    tokenFile = "/run/agenix/runner";
  };
}
