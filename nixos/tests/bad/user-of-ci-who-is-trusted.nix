# refused: has a user of CI on a machine that signs what it serves
{
  fleet.nix.enable = true;
  services.snowbank.enable = true;
  nix.settings.trusted-users = [
    "root"
    "gitlab-runner"
  ];
}
