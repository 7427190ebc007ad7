# What stands in for nixpkgs where there is none: its lib, the packages that are named, and `nixosSystem` over the options
# that `contract.json` lists. What a definition does in NixOS is not modelled; that it may be made, and of which type, is.
let
  lib = import ./lib;
  pkgsFor =
    system: overlays:
    let
      base = import ./pkgs.nix { inherit lib system; };
      final = builtins.foldl' (pkgs: overlay: pkgs // overlay final pkgs) base overlays // {
        extend = overlay: pkgsFor system (overlays ++ [ overlay ]);
      };
    in
    final;

  # A system of modules: their options and values, with `system.build.toplevel` failing where NixOS would fail for an
  # assertion.
  nixosSystem =
    {
      modules,
      system ? null,
      specialArgs ? { },
    }:
    let
      evaluated = lib.evalModules {
        modules = [
          ./system.nix
          (
            { config, ... }:
            {
              _module.args.pkgs =
                let
                  platform = config.nixpkgs.hostPlatform;
                in
                pkgsFor (
                  if system != null then
                    system
                  else if builtins.isString platform then
                    platform
                  else
                    platform.system or (throw "nixpkgs.hostPlatform is not set")
                ) config.nixpkgs.overlays;
            }
          )
        ]
        ++ modules;
        specialArgs = {
          modulesPath = toString ./modules;
        }
        // specialArgs;
      };
    in
    evaluated // { _type = "configuration"; };
in
{
  lib = lib // {
    inherit nixosSystem;
  };
  legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: pkgsFor system [ ]);
}
