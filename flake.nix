{
  description = "A Nix binary cache server that knows it lives on ZFS";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      manifest = (lib.importTOML ./Cargo.toml).package;
      forEachSystem =
        build:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: build nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEachSystem (pkgs: rec {
        default = snowbank;
        snowbank = pkgs.rustPlatform.buildRustPackage {
          pname = manifest.name;
          inherit (manifest) version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          # The end-to-end tests unpack a Nix from the network; tests/run runs them.
          cargoTestFlags = [ "--lib" ];
          meta = {
            inherit (manifest) description;
            license = [
              lib.licenses.mit
              lib.licenses.asl20
            ];
            mainProgram = "snowbank";
            platforms = lib.platforms.linux;
          };
        };
      });

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.snowbank ];
          packages = with pkgs; [
            cargo-deny
            cargo-fuzz
            clippy
            gnuplot
            nginx
            rustfmt
            wrk
          ];
        };
      });
    };
}
