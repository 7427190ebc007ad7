# refused: with pluginsFile nobody is asked for a password
{
  fleet.jenkins = {
    enable = true;
    pluginsFile = ../plugins/some.json;
  };
}
