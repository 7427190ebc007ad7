# The secrets of the example hosts by agenix, where its module is imported beside ours; without it this does nothing.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.fleet.secrets;
in
{
  options.fleet.secrets = mkOption {
    type = types.attrsOf types.path;
    default = { };
    example = lib.literalExpression "{ cache-signing-key = ./secrets/cache-signing-key.age; }";
    description = ''
      Secrets by name, each a file that was encrypted with agenix to the keys of the hosts that need it. They are decrypted to
      `/run/agenix/NAME` when the machine starts, as it is only there that their key is.
    '';
  };

  config = {
    assertions = [
      {
        assertion = cfg != { } -> options ? age;
        message = "fleet.secrets needs agenix: import the module of its flake, agenix.nixosModules.default, beside ours.";
      }
      {
        assertion = lib.all (file: lib.hasSuffix ".age" (toString file)) (builtins.attrValues cfg);
        message = "fleet.secrets: ${
          lib.concatMapStringsSep ", " toString (
            lib.filter (file: !(lib.hasSuffix ".age" (toString file))) (builtins.attrValues cfg)
          )
        } is not encrypted (.age), and would be in the store for everybody to read.";
      }
    ];
  }
  // lib.optionalAttrs (options ? age) {
    age.secrets = builtins.mapAttrs (_: file: { inherit file; }) cfg;
  };
}
