# refused: the plugin configuration-as-code is not in it
{
  fleet.jenkins = {
    enable = true;
    pluginsFile = ../plugins/none.json;
    adminPasswordFile = "/run/agenix/jenkins-admin";
  };
}
