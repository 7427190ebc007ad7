{
  fleet.nix = {
    enable = true;
    collect.snapshot = "tank/nix";
    signingKeyFile = "/run/agenix/key";
  };
}
