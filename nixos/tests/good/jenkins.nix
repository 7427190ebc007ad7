{ config, ... }:
{
  fleet.jenkins = {
    enable = true;
    pluginsFile = ../plugins/some.json;
    adminPasswordFile = "/run/agenix/jenkins-admin";
    configuration.jenkins.numExecutors = 8;
    pipelines.nightly = ./jenkins.nix;
  };
  assertions = [
    {
      assertion = config.services.jenkins.listenAddress == "127.0.0.1";
      message = "Jenkins is open to the network";
    }
    {
      assertion =
        config.fleet.jenkins.configuration.jenkins.securityRealm.local.allowsSignup == false
        && config.fleet.jenkins.configuration.jenkins.numExecutors == 8;
      message = "the configuration is not what was asked for beside what is safe";
    }
    {
      # What the credential is called here is what it is called there.
      assertion =
        (builtins.head config.fleet.jenkins.configuration.jenkins.securityRealm.local.users).password
        == "\${admin-password}"
        && builtins.elem "admin-password:/run/agenix/jenkins-admin" config.systemd.services.jenkins.serviceConfig.LoadCredential;
      message = "the password of the administrator is another than that of the file";
    }
    {
      assertion =
        builtins.attrNames config.services.jenkins.plugins == [ "configuration-as-code" ]
        && config.environment.etc ? "jenkins/pipelines/nightly";
      message = "plugins or pipelines are not where Jenkins looks";
    }
  ];
}
