# The program, as nixpkgs builds it.
{
  lib,
  rustPlatform,
  source,
}:
let
  manifest = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).package;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;
  src = source;
  cargoLock.lockFile = ../Cargo.lock;
  # The end-to-end tests unpack a Nix from the network; tests/run runs them.
  cargoTestFlags = [ "--lib" ];
  # The name by which Nix calls it after each build.
  postInstall = "ln -s snowbank $out/bin/snowbank-hook";
  meta = {
    inherit (manifest) description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "snowbank";
    platforms = lib.platforms.linux;
  };
}
