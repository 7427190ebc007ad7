# refused: fleet.vmRunner takes its token from one place
{
  fleet.vmRunner = {
    enable = true;
    envFile = "/etc/gitlab-runner-env";
  };
}
