{
  description = "A Nix binary cache server that knows it lives on ZFS";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }: import ./nixos { inherit self nixpkgs; };
}
