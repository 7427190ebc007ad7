# The types of options: what is of a type, and how several definitions become one value.
self:
let
  inherit (builtins)
    isAttrs
    isList
    isString
    isInt
    isBool
    isFunction
    isPath
    attrNames
    elem
    head
    length
    concatLists
    concatMap
    concatStringsSep
    filter
    hasAttr
    listToAttrs
    map
    match
    removeAttrs
    substring
    tail
    all
    any
    elemAt
    isFloat
    foldl'
    ;
  inherit (self)
    typed
    isDerivation
    unique
    showLoc
    show
    showDefs
    pushDown
    settle
    evalModulesAt
    ;
  mergeOne =
    what: loc: defs:
    if length defs == 1 then
      (head defs).value
    else
      throw "The option `${showLoc loc}' (${what}) is defined several times:${showDefs defs}";
  mergeEqual =
    loc: defs:
    if all (d: d.value == (head defs).value) defs then
      (head defs).value
    else
      throw "The option `${showLoc loc}' has conflicting definitions:${showDefs defs}";
  mkType =
    {
      name,
      merge ? mergeEqual,
      description ? name,
      ...
    }@a:
    {
      _type = "option-type";
      inherit description merge;
    }
    // a;
  mergeDefs =
    type: loc: defs:
    let
      s = settle defs;
      bad = filter (d: !(type.check d.value)) s;
    in
    if bad != [ ] then
      throw "A definition for option `${showLoc loc}' is not of type `${type.description}':${showDefs bad}"
    else
      type.merge loc s;
  nonEmpty =
    _type: _loc: defs:
    settle defs != [ ];

  types = {
    bool = mkType {
      name = "bool";
      description = "boolean";
      check = isBool;
    };
    int = mkType {
      name = "int";
      description = "signed integer";
      check = isInt;
    };
    float = mkType {
      name = "float";
      check = isFloat;
    };
    number = mkType {
      name = "number";
      check = v: isInt v || isFloat v;
    };
    str = mkType {
      name = "str";
      description = "string";
      check = isString;
    };
    singleLineStr = mkType {
      name = "singleLineStr";
      check = v: isString v && match "[^\n]*\n?" v != null;
    };
    nonEmptyStr = mkType {
      name = "nonEmptyStr";
      check = v: isString v && match "[ \t\n]*" v == null;
    };
    path = mkType {
      name = "path";
      description = "absolute path";
      check =
        v:
        isPath v || isDerivation v || (isAttrs v && v ? outPath) || (isString v && substring 0 1 v == "/");
    };
    package = mkType {
      name = "package";
      check = v: isDerivation v || (isString v && substring 0 11 v == "/nix/store/");
      merge = mergeOne "package";
    };
    raw = mkType {
      name = "raw";
      description = "raw value";
      check = _: true;
      merge = mergeOne "raw value";
    };
    unspecified = mkType {
      name = "unspecified";
      check = _: true;
      merge = _: defs: (head defs).value;
    };
    attrs = mkType {
      name = "attrs";
      description = "attribute set";
      check = isAttrs;
      merge = _: defs: foldl' (a: d: a // d.value) { } defs;
    };
    anything = mkType {
      name = "anything";
      check = _: true;
      merge =
        loc: defs:
        let
          vs = map (d: d.value) defs;
        in
        if all (v: isAttrs v && !(isDerivation v) && !(v ? _type)) vs then
          (types.attrsOf types.anything).merge loc defs
        else if all isFunction vs then
          (if length vs == 1 then head vs else throw "The option `${showLoc loc}' has several functions")
        else
          mergeEqual loc defs;
    };
    separatedString =
      sep:
      mkType {
        name = "separatedString";
        description = "string";
        check = isString;
        merge = _: defs: concatStringsSep sep (map (d: d.value) defs);
      };
    lines = types.separatedString "\n" // {
      description = "lines";
    };
    commas = types.separatedString ",";
    envVar = types.separatedString ":";
    strMatching =
      re:
      mkType {
        name = "strMatching";
        description = "string matching the pattern ${re}";
        check = v: isString v && match re v != null;
      };
    enum =
      vs:
      mkType {
        name = "enum";
        description = "one of ${concatStringsSep ", " (map show vs)}";
        check = v: elem v vs;
      };
    ints =
      let
        between =
          lo: hi:
          mkType {
            name = "intBetween";
            description = "integer between ${toString lo} and ${toString hi}";
            check = v: isInt v && v >= lo && v <= hi;
          };
      in
      {
        inherit between;
        positive = mkType {
          name = "positiveInt";
          description = "positive integer";
          check = v: isInt v && v > 0;
        };
        unsigned = mkType {
          name = "unsignedInt";
          description = "unsigned integer";
          check = v: isInt v && v >= 0;
        };
        u8 = between 0 255;
        u16 = between 0 65535;
        u32 = between 0 4294967295;
      };
    port = types.ints.between 0 65535 // {
      name = "port";
    };
    uniq = t: t // { merge = mergeOne t.description; };
    addCheck = t: f: t // { check = v: t.check v && f v; };
    nullOr =
      t:
      mkType {
        name = "nullOr";
        description = "null or ${t.description}";
        check = v: v == null || t.check v;
        merge =
          loc: defs:
          if all (d: d.value == null) defs then
            null
          else if any (d: d.value == null) defs then
            throw "The option `${showLoc loc}' is defined both null and not null:${showDefs defs}"
          else
            t.merge loc defs;
      };
    either =
      a: b:
      mkType {
        name = "either";
        description = "${a.description} or ${b.description}";
        check = v: a.check v || b.check v;
        merge =
          loc: defs:
          if all (d: a.check d.value) defs then
            a.merge loc defs
          else if all (d: b.check d.value) defs then
            b.merge loc defs
          else
            mergeEqual loc defs;
      };
    oneOf = ts: if length ts == 1 then head ts else types.either (head ts) (types.oneOf (tail ts));
    coercedTo =
      from: f: to:
      mkType {
        name = "coercedTo";
        description = "${to.description} or ${from.description} convertible to it";
        check = v: to.check v || (from.check v && to.check (f v));
        merge =
          loc: defs: to.merge loc (map (d: if to.check d.value then d else d // { value = f d.value; }) defs);
      };
    functionTo =
      t:
      mkType {
        name = "functionTo";
        check = isFunction;
        merge =
          loc: defs: arg:
          t.merge loc (map (d: d // { value = d.value arg; }) defs);
      };
    listOf =
      t:
      mkType {
        name = "listOf";
        description = "list of (${t.description})";
        check = isList;
        merge =
          loc: defs:
          concatLists (
            map (
              d:
              concatMap (
                v:
                let
                  one = [
                    {
                      inherit (d) file;
                      value = v;
                    }
                  ];
                in
                if nonEmpty t loc one then [ (mergeDefs t (loc ++ [ "*" ]) one) ] else [ ]
              ) d.value
            ) defs
          );
      };
    nonEmptyListOf = t: types.addCheck (types.listOf t) (l: l != [ ]);
    attrsOf =
      t:
      mkType {
        name = "attrsOf";
        description = "attribute set of (${t.description})";
        check = v: isAttrs v && !(isDerivation v);
        merge =
          loc: defs:
          let
            parts = concatMap (
              d:
              map (value: {
                inherit (d) file;
                inherit value;
              }) (pushDown d.value)
            ) defs;
            names = unique (concatMap (p: attrNames p.value) parts);
            defsOf =
              n:
              concatMap (
                p:
                if hasAttr n p.value then
                  [
                    {
                      inherit (p) file;
                      value = p.value.${n};
                    }
                  ]
                else
                  [ ]
              ) parts;
          in
          listToAttrs (
            map (n: {
              name = n;
              value = mergeDefs t (loc ++ [ n ]) (defsOf n);
            }) (filter (n: nonEmpty t loc (defsOf n)) names)
          );
      };
    lazyAttrsOf = t: types.attrsOf t;
    submoduleWith =
      {
        modules,
        specialArgs ? { },
        ...
      }:
      mkType {
        name = "submodule";
        description = "submodule";
        check = v: isAttrs v || isFunction v || isPath v;
        merge =
          loc: defs:
          removeAttrs
            (evalModulesAt loc {
              modules =
                modules
                ++ [ { _module.args.name = if loc == [ ] then "" else elemAt loc (length loc - 1); } ]
                ++ map (d: {
                  _file = d.file;
                  imports = [ (if isAttrs d.value then { config = d.value; } else d.value) ];
                }) defs;
              inherit specialArgs;
            }).config
            [ "_module" ];
      };
    submodule = m: types.submoduleWith { modules = if isList m then m else [ m ]; };
    deferredModule = mkType {
      name = "deferredModule";
      description = "module";
      check = v: isAttrs v || isFunction v || isPath v;
      merge = _: defs: {
        imports = map (d: {
          _file = d.file;
          imports = [ d.value ];
        }) defs;
      };
    };
    optionType = mkType {
      name = "optionType";
      check = v: typed "option-type" v;
      merge = mergeOne "option type";
    };
  };
in
{
  inherit
    mergeOne
    mergeEqual
    mkType
    mergeDefs
    nonEmpty
    types
    ;
}
