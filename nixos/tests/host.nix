# One machine with a module on top of all of ours.
nixpkgs: module:
let
  flake = import ../. { inherit nixpkgs; };
in
nixpkgs.lib.nixosSystem {
  modules = [
    flake.nixosModules.default
    {
      nixpkgs.hostPlatform = "x86_64-linux";
      nixpkgs.overlays = [ flake.overlays.default ];
    }
    module
  ];
}
