{
  description = "What stands in for nixpkgs in the tests: nix flake check --override-input nixpkgs path:nixos/tests/standin";
  outputs = _: import ./.;
}
