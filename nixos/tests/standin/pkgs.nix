# The packages that modules here name, of one system: derivations that can be evaluated and hold nothing. Any other name
# is an error, as in nixpkgs.
{ lib, system }:
let
  package =
    name:
    derivation {
      inherit name system;
      builder = "/bin/sh";
      args = [
        "-c"
        "echo ${name} > $out"
      ];
    }
    // {
      pname = name;
      version = "1";
      meta.mainProgram = name;
      override = _: package name;
      overrideAttrs = _: package name;
    };
  # A file whose text the tests look at; building it makes the file.
  textFile =
    name: text:
    derivation {
      inherit name system text;
      passAsFile = [ "text" ];
      builder = "/bin/sh";
      args = [
        "-c"
        "while IFS= read -r line || [ -n \"$line\" ]; do printf '%s\\n' \"$line\"; done < \"$textPath\" > $out"
      ];
    };
  named = lib.genAttrs (lib.splitString "\n" (lib.removeSuffix "\n" (builtins.readFile ./packages.txt))) package;
in
named
// {
  inherit lib package;
  stdenv.hostPlatform = {
    inherit system;
    isx86_64 = system == "x86_64-linux";
    isAarch64 = system == "aarch64-linux";
  };
  # What is fetched is known by its hash; nothing is.
  fetchurl =
    {
      name,
      url,
      hash,
    }:
    package name // { inherit url hash; };
  writeText = textFile;
  writeShellScript = textFile;
  writeTextFile = { name, text, ... }: textFile name text;
  formats = {
    toml = _: {
      type = lib.types.attrsOf lib.types.anything;
      generate = name: value: textFile name (builtins.toJSON value) // { inherit value; };
    };
    json = _: {
      type = lib.types.attrsOf lib.types.anything;
      generate = name: value: textFile name (builtins.toJSON value) // { inherit value; };
    };
  };
  mkShell = args: package "shell" // { inherit args; };
  rustPlatform.buildRustPackage = args: package args.pname // { inherit args; };
  linkFarm =
    name: entries:
    derivation {
      inherit name system;
      paths = map (entry: "${entry.path}") entries;
      builder = "/bin/sh";
      args = [
        "-c"
        "echo $paths > $out"
      ];
    }
    // {
      inherit entries;
    };
  runCommand =
    name: _env: script:
    derivation {
      inherit name system script;
      builder = "/bin/sh";
      args = [
        "-c"
        script
      ];
    };
  testers.runNixOSTest = test: package "vm-test" // { inherit test; };
}
