# The settings of the server as options. `settings.json` is made from the commented example of the configuration, and a
# test of the program holds the two together: what is said here is what `snowbank serve --print-example-config` says.
{ lib }:
let
  inherit (lib) mkOption types;
  all = builtins.fromJSON (builtins.readFile ./settings.json);

  # By the default: sizes may be numbers as well, and lists of caches elsewhere hold sets.
  typeOf =
    default:
    if builtins.isBool default then
      types.bool
    else if builtins.isInt default then
      types.int
    else if builtins.isList default then
      types.listOf (types.either types.str (types.attrsOf types.unspecified))
    else
      types.oneOf [
        types.str
        types.int
        (types.listOf types.str)
        (types.attrsOf types.unspecified)
      ];

  option =
    one:
    mkOption {
      type = types.nullOr (typeOf one.default);
      default = null;
      example = one.default;
      description = ''
        ${one.description}

        Where this is null the server's own default counts: `${builtins.toJSON one.default}`.
      '';
    };

  of =
    section:
    builtins.listToAttrs (
      map (one: {
        name = one.key;
        value = option one;
      }) (builtins.filter (one: one.section == section) all)
    );

  sections = lib.filter (name: name != "" && name != "cache" && name != "client") (
    lib.unique (map (one: one.section) all)
  );
  group = section: types.submodule { options = of section; };
in
types.submodule {
  options =
    of ""
    // {
      cache = mkOption {
        type = types.attrsOf (group "cache");
        default = { };
        description = "The caches by name; `default` answers at `/`, another one at `/c/NAME/`.";
      };
      client = mkOption {
        type = types.attrsOf (group "client");
        default = { };
        description = "What client certificates are good for, by any name.";
      };
    }
    // lib.genAttrs sections (
      section:
      mkOption {
        type = group section;
        default = { };
        description = "The section `[${section}]` of the configuration.";
      }
    );
}
