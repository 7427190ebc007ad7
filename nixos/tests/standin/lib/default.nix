# A small stand-in for the parts of nixpkgs' `lib` that this tree uses, so that the modules can be evaluated where only a
# Nix is at hand. It models the module system as it is documented; where a nixpkgs is at hand, `nixos/tests/real.sh`
# evaluates the same with the real one.
let
  self =
    import ./values.nix self
    // import ./properties.nix self
    // import ./types.nix self
    // import ./modules.nix self
    // {
      lib = import ./helpers.nix self;
    };
in
self.lib
