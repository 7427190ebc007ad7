# What modules call: the helpers of nixpkgs' lib that this tree uses, under their names there.
self:
let
  inherit (self)
    show
    ;
in
rec {
  inherit (self)
    types
    mkOption
    mkIf
    mkMerge
    mkOverride
    mkOrder
    attrByPath
    setAttrByPath
    isDerivation
    unique
    ;
  inherit (builtins)
    isAttrs
    isList
    isString
    isInt
    isBool
    attrNames
    attrValues
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    head
    length
    listToAttrs
    map
    mapAttrs
    match
    removeAttrs
    replaceStrings
    splitVersion
    stringLength
    substring
    tail
    toJSON
    fromJSON
    readFile
    toString
    all
    any
    isFunction
    concatLists
    hasAttr
    compareVersions
    ;
  evalModules = self.evalModulesAt [ ];
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkOptionDefault = mkOverride 1500;
  mkVMOverride = mkOverride 10;
  mkImageMediaOverride = mkOverride 60;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;
  mkEnableOption =
    name:
    mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to enable ${name}.";
    };
  mkPackageOption =
    pkgs: name: a:
    mkOption {
      type = types.package;
      default = attrByPath (
        if isList (a.default or name) then a.default or name else [ (a.default or name) ]
      ) (throw "mkPackageOption: pkgs has no ${toJSON name}") pkgs;
      description = "The ${show name} package to use.";
    };
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
  literalMD = literalExpression;
  optional = c: v: if c then [ v ] else [ ];
  optionals = c: l: if c then l else [ ];
  optionalString = c: s: if c then s else "";
  optionalAttrs = c: a: if c then a else { };
  genAttrs =
    names: f:
    listToAttrs (
      map (name: {
        inherit name;
        value = f name;
      }) names
    );
  nameValuePair = name: value: { inherit name value; };
  mapAttrsToList = f: a: map (n: f n a.${n}) (attrNames a);
  mapAttrs' = f: a: listToAttrs (mapAttrsToList f a);
  filterAttrs =
    f: a:
    listToAttrs (
      concatMap (
        n:
        if f n a.${n} then
          [
            {
              name = n;
              value = a.${n};
            }
          ]
        else
          [ ]
      ) (attrNames a)
    );
  concatMapStringsSep =
    sep: f: l:
    concatStringsSep sep (map f l);
  concatStrings = concatStringsSep "";
  concatMapStrings = concatMapStringsSep "";
  concatLines = concatMapStrings (l: l + "\n");
  concatMapAttrs = f: a: foldl' (x: y: x // y) { } (mapAttrsToList f a);
  hasPrefix = p: s: substring 0 (stringLength p) s == p;
  hasSuffix =
    p: s:
    let
      n = stringLength s - stringLength p;
    in
    n >= 0 && substring n (stringLength s) s == p;
  hasInfix =
    p: s:
    builtins.length (
      builtins.split (builtins.replaceStrings
        [
          "."
          "*"
          "+"
          "?"
          "("
          ")"
          "["
          "]"
          "{"
          "}"
          "^"
          "$"
          "|"
          "\\"
        ]
        [
          "\\."
          "\\*"
          "\\+"
          "\\?"
          "\\("
          "\\)"
          "\\["
          "\\]"
          "\\{"
          "\\}"
          "\\^"
          "\\$"
          "\\|"
          "\\\\"
        ]
        p
      ) s
    ) > 1;
  removePrefix = p: s: if hasPrefix p s then substring (stringLength p) (-1) s else s;
  removeSuffix = p: s: if hasSuffix p s then substring 0 (stringLength s - stringLength p) s else s;
  splitString =
    sep: s:
    filter isString (
      builtins.split (builtins.replaceStrings [ "." ":" "," "/" ] [ "\\." ":" "," "/" ] sep) s
    );
  escapeShellArg = s: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString s)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  boolToString = b: if b then "true" else "false";
  flatten = x: if isList x then concatMap flatten x else [ x ];
  last = l: elemAt l (length l - 1);
  toList = x: if isList x then x else [ x ];
  getExe = p: "${p}/bin/${p.meta.mainProgram or p.pname or p.name}";
  getExe' = p: n: "${p}/bin/${n}";
  getBin = p: p;
  makeBinPath = concatMapStringsSep ":" (p: "${p}/bin");
  imap0 = f: l: genList (i: f i (elemAt l i)) (length l);
  imap1 = f: l: genList (i: f (i + 1) (elemAt l i)) (length l);
  range = a: b: if a > b then [ ] else genList (i: a + i) (b - a + 1);
  fixedWidthNumber =
    w: n:
    let
      s = toString n;
    in
    concatStrings (genList (_: "0") (w - stringLength s)) + s;
  recursiveUpdate =
    a: b:
    a
    // mapAttrs (
      n: v: if hasAttr n a && isAttrs a.${n} && isAttrs v then recursiveUpdate a.${n} v else v
    ) b;
  stringToCharacters = s: genList (i: substring i 1 s) (stringLength s);
  upperLetters = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  lowerLetters = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
  toUpper = builtins.replaceStrings lowerLetters upperLetters;
  toLower = builtins.replaceStrings upperLetters lowerLetters;
  toInt = s: builtins.fromJSON s;
  findFirst =
    f: default: l:
    let
      found = filter f l;
    in
    if found == [ ] then default else builtins.head found;
  assertMsg = c: m: if c then true else throw m;
  throwIf = c: m: if c then throw m else (x: x);
  throwIfNot = c: throwIf (!c);
  warn = m: v: builtins.trace "warning: ${m}" v;
  id = x: x;
  const = x: _: x;
  version = "stand-in";
  trivial.release = "stand-in";
  strings = { inherit concatStringsSep optionalString hasPrefix; };
  attrsets = { inherit genAttrs mapAttrsToList; };
  lists = { inherit optional optionals; };
}
