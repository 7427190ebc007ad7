# refused: fleet.jenkins.configuration is read by a plugin
{
  fleet.jenkins = {
    enable = true;
    configuration.jenkins.numExecutors = 2;
  };
}
