{ config, ... }:
{
  fleet.gitlabRunner = {
    enable = true;
    executor = "docker";
    image = "alpine:3.22";
    tokenFile = "/run/agenix/runner";
  };
  assertions = [
    {
      assertion =
        let
          service = config.services.gitlab-runner.services.${config.networking.hostName};
        in
        !(service.dockerPrivileged or false)
        && builtins.all (volume: builtins.match ".*docker.sock.*" volume == null) service.dockerVolumes;
      message = "a job would be root on the machine";
    }
  ];
}
