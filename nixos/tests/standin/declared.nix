# The options of NixOS, declared from what `contract.json` says of them: their paths, and their types by how NixOS
# describes those. An option that it does not have is an error here as well; of a type that is described in no way known
# here anything is taken.
#
# What an option's default is, the contract does not say. A list and a set are empty, a Boolean is false and all else
# null, but for the few in `defaults` on which modules here depend.
{ lib }:
let
  inherit (builtins)
    attrNames
    elemAt
    fromJSON
    isString
    listToAttrs
    match
    readFile
    removeAttrs
    ;
  inherit (lib)
    hasPrefix
    mkOption
    removePrefix
    removeSuffix
    types
    ;

  defaults = {
    "networking.firewall.enable" = true;
    "networking.hostName" = "nixos";
    "networking.domain" = null;
    "nix.enable" = true;
    "services.openssh.ports" = [ 22 ];
    "systemd.services.*.enable" = true;
  };

  simple = {
    "boolean" = types.bool;
    "string" = types.str;
    "signed integer" = types.int;
    "unsigned integer, meaning >=0" = types.ints.unsigned;
    "positive integer, meaning >0" = types.ints.positive;
    "16 bit unsigned integer; between 0 and 65535 (both inclusive)" = types.port;
    "strings concatenated with \"\\n\"" = types.lines;
    "absolute path" = types.path;
    "package" = types.package;
    "module" = types.deferredModule;
    "attribute set" = types.attrs;
    "string or absolute path" = types.either types.str types.path;
    "string, not containing newlines or colons" = types.strMatching "[^\n:]*";
    "(optionally newline-terminated) single-line string" = types.singleLineStr;
    "systemd option" = systemdValue;
  };
  systemdValue =
    let
      atom = types.nullOr (
        types.oneOf [
          types.bool
          types.int
          types.float
          types.str
          types.path
          types.package
        ]
      );
    in
    types.either atom (types.listOf atom);

  # "(X)" is X.
  inner =
    text:
    let
      found = match "\\((.*)\\)" text;
    in
    if found == null then text else elemAt found 0;
  quoted =
    text:
    let
      found = match "\"([^\"]*)\"(, (.*))?" text;
    in
    if found == null then
      [ ]
    else
      [ (elemAt found 0) ] ++ (if elemAt found 2 == null then [ ] else quoted (elemAt found 2));

  # What is below an option of sets or of a submodule.
  below = node: node."<name>" or node."*" or (removeAttrs node [ "_type" ]);

  typeOf =
    path: text: node:
    let
      rest = prefix: typeOf path (inner (removePrefix prefix text)) node;
      integers = match "integer between (-?[0-9]+) and ([0-9]+) \\(both inclusive\\)" text;
      pattern = match "string matching the pattern (.*)" text;
    in
    if simple ? ${text} then
      simple.${text}
    else if hasPrefix "null or " text then
      types.nullOr (rest "null or ")
    else if hasPrefix "list of " text then
      types.listOf (rest "list of ")
    else if hasPrefix "non-empty (list of " text then
      types.listOf (typeOf path (inner (removeSuffix ")" (removePrefix "non-empty (list of " text))) node)
    else if hasPrefix "attribute set of " text then
      types.attrsOf (rest "attribute set of ")
    else if hasPrefix "lazy attribute set of " text then
      types.attrsOf (rest "lazy attribute set of ")
    else if text == "submodule" then
      types.submodule { options = toOptions "${path}.*" (below node); }
    else if hasPrefix "open submodule" text then
      types.submodule {
        freeformType = types.attrsOf types.anything;
        options = toOptions "${path}.*" (below node);
      }
    else if hasPrefix "one of \"" text then
      types.enum (quoted (removePrefix "one of " text))
    else if integers != null then
      types.ints.between (fromJSON (elemAt integers 0)) (fromJSON (elemAt integers 1))
    else if pattern != null then
      types.strMatching (elemAt pattern 0)
    else
      types.anything;

  defaultOf =
    path: text:
    if defaults ? ${path} then
      defaults.${path}
    else if text == "boolean" then
      false
    else if hasPrefix "list of " text then
      [ ]
    else if hasPrefix "attribute set" text || hasPrefix "lazy attribute set" text then
      { }
    else if hasPrefix "strings concatenated" text then
      ""
    else if text == "submodule" || hasPrefix "open submodule" text then
      { }
    else
      null;

  option =
    path: node:
    let
      text = if isString node then node else node._type;
      type = typeOf path text (if isString node then { } else node);
      default = defaultOf path text;
    in
    mkOption {
      inherit default;
      type = if default == null then types.nullOr type else type;
    };

  toOptions =
    path: node:
    listToAttrs (
      map
        (name: {
          inherit name;
          value =
            let
              at = if path == "" then name else "${path}.${name}";
              child = node.${name};
            in
            if isString child || child ? _type then option at child else toOptions at child;
        })
        (
          builtins.filter (
            name:
            !(builtins.elem name [
              "_type"
              "<name>"
              "*"
            ])
          ) (attrNames node)
        )
    );
in
toOptions "" (fromJSON (readFile ./contract.json))
