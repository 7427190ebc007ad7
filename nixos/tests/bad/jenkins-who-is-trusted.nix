# refused: leave jenkins out
{
  fleet.jenkins.enable = true;
  nix.settings.trusted-users = [ "jenkins" ];
}
