# Modules: reading them, putting their options together, and giving each option its value.
self:
let
  inherit (builtins)
    isAttrs
    isString
    isFunction
    isPath
    attrNames
    attrValues
    elem
    head
    length
    concatLists
    concatMap
    filter
    hasAttr
    listToAttrs
    map
    mapAttrs
    removeAttrs
    functionArgs
    elemAt
    genList
    foldl'
    ;
  inherit (self)
    typed
    reverse
    isDerivation
    unique
    showLoc
    show
    showDefs
    setAttrByPath
    mkOverride
    pushDown
    discharge
    settle
    mergeDefs
    types
    ;
  mkOption =
    a:
    let
      unknown = attrNames (
        removeAttrs a [
          "default"
          "defaultText"
          "example"
          "description"
          "type"
          "apply"
          "internal"
          "visible"
          "readOnly"
          "relatedPackages"
        ]
      );
    in
    if unknown != [ ] then
      throw "mkOption: unknown attribute ${toString unknown}"
    else
      { _type = "option"; } // a;

  load =
    args: file: m:
    let
      isP = isPath m || isString m;
      where = if isP then toString m else file;
      value = if isP then import m else m;
      called =
        if isFunction value then
          (
            let
              wanted = functionArgs value;
            in
            value (
              removeAttrs args [ "__ask" ]
              // mapAttrs (n: _: if hasAttr n args then args.${n} else args.__ask n) (
                removeAttrs wanted (filter (n: wanted.${n}) (attrNames wanted))
              )
            )
          )
        else
          value;
      at = called._file or where;
      structured = called ? options || called ? config;
      extra = attrNames (
        removeAttrs called [
          "_file"
          "key"
          "imports"
          "options"
          "config"
          "freeformType"
          "disabledModules"
          "meta"
          "_class"
        ]
      );
      body =
        if !(isAttrs called) then
          throw "${at}: a module is neither a function nor a set: ${show called}"
        else if structured && extra != [ ] then
          throw "Module `${at}' has an unsupported attribute `${head extra}': it should be under `config' or `options'"
        else
          {
            file = at;
            options = called.options or { };
            config =
              if structured then
                (called.config or { })
                // (
                  if called ? freeformType then
                    {
                      _module = {
                        freeformType = called.freeformType;
                      };
                    }
                  else
                    { }
                )
              else
                removeAttrs called [
                  "_file"
                  "key"
                  "imports"
                  "freeformType"
                  "disabledModules"
                  "meta"
                  "_class"
                ]
                // (if called ? freeformType then { _module.freeformType = called.freeformType; } else { });
          };
      # a module given by path counts once, however often it is imported
    in
    [
      {
        key = if isP then toString m else null;
        inherit body;
      }
    ]
    ++ concatMap (load args at) (called.imports or [ ]);

  evalModulesAt =
    prefix:
    {
      modules,
      specialArgs ? { },
      check ? true,
    }:
    let
      args = {
        inherit (self) lib;
        config = result;
        options = optionTree;
      }
      // specialArgs
      // {
        __ask =
          n:
          result._module.args.${n} or (throw "a module asks for the argument `${n}', which does not exist");
      };
      internal = {
        file = "<internal>";
        options._module = {
          args = mkOption {
            type = types.attrsOf types.raw;
            default = { };
          };
          check = mkOption {
            type = types.bool;
            default = true;
          };
          freeformType = mkOption {
            type = types.nullOr types.optionType;
            default = null;
          };
        };
        config = { };
      };
      all' =
        foldl'
          (
            acc: m:
            if m.key != null && elem m.key acc.seen then
              acc
            else
              {
                seen = acc.seen ++ (if m.key == null then [ ] else [ m.key ]);
                list = acc.list ++ [ m.body ];
              }
          )
          {
            seen = [ ];
            list = [ ];
          }
          (concatMap (load args "<unknown file>") modules);
      bodies = [ internal ] ++ all'.list;
      mergeOpts =
        loc: decls: # decls: [{file, value}]
        let
          leaves = filter (d: typed "option" d.value) decls;
        in
        if leaves != [ ] then
          (
            if length decls == 1 then
              (head decls).value // { declared = (head decls).file; }
            else
              throw "The option `${showLoc loc}' in `${(head decls).file}' is already declared in `${(elemAt decls 1).file}'"
          )
        else
          let
            names = unique (
              concatMap (
                d:
                if isAttrs d.value then
                  attrNames d.value
                else
                  throw "In `${d.file}': `options.${showLoc loc}' is not an option but ${show d.value}"
              ) decls
            );
          in
          listToAttrs (
            map (n: {
              name = n;
              value = mergeOpts (loc ++ [ n ]) (
                concatMap (
                  d:
                  if hasAttr n d.value then
                    [
                      {
                        inherit (d) file;
                        value = d.value.${n};
                      }
                    ]
                  else
                    [ ]
                ) decls
              );
            }) names
          );
      optionTree = mergeOpts prefix (
        map (b: {
          inherit (b) file;
          value = b.options;
        }) bodies
      );
      rootDefs = map (b: {
        inherit (b) file;
        value = b.config;
      }) (reverse bodies); # NixOS merges in this order
      evalLeaf =
        loc: o: defs:
        let
          t = o.type or types.unspecified;
          d =
            if o ? default then
              [
                {
                  file = o.declared or "?";
                  value = mkOverride 1500 o.default;
                }
              ]
            else
              [ ];
          s = settle (defs ++ d);
          v =
            if s == [ ] then
              throw "The option `${showLoc loc}' was accessed but has no value defined. Try setting the option."
            else if (o.readOnly or false) && length (concatMap (x: discharge x.value) defs) + length d > 1 then
              throw "The option `${showLoc loc}' is read-only, but it is set several times"
            else
              mergeDefs t loc (defs ++ d);
        in
        if o ? apply then o.apply v else v;
      descend =
        loc: tree: defs:
        let
          parts = concatMap (
            d:
            map (
              value:
              if isAttrs value then
                {
                  inherit (d) file;
                  inherit value;
                }
              else
                throw "The option `${showLoc loc}' is a set of options, but `${d.file}' defines it as ${show value}"
            ) (pushDown d.value)
          ) defs;
          names = unique (attrNames tree ++ concatMap (p: attrNames p.value) parts);
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
          known = listToAttrs (
            map (n: {
              name = n;
              value =
                let
                  o = tree.${n};
                  l = loc ++ [ n ];
                in
                if typed "option" o then
                  {
                    value = evalLeaf l o (defsOf n);
                    loose = [ ];
                  }
                else
                  descend l o (defsOf n);
            }) (attrNames tree)
          );
          here = filter (n: !(hasAttr n tree)) names;
        in
        {
          value = mapAttrs (_: k: k.value) known;
          loose =
            map (n: {
              loc = loc ++ [ n ];
              defs = defsOf n;
            }) here
            ++ concatLists (map (k: k.loose) (attrValues known));
        };
      tree = descend prefix optionTree rootDefs;
      free = tree.value._module.freeformType;
      strip = l: genList (i: elemAt l (i + length prefix)) (length l - length prefix);
      freeDefs = concatMap (
        u:
        map (d: {
          inherit (d) file;
          value = setAttrByPath (strip u.loc) d.value;
        }) u.defs
      ) tree.loose;
      recursiveUpdate =
        a: b:
        a
        // mapAttrs (
          n: v:
          if hasAttr n a && isAttrs a.${n} && isAttrs v && !(isDerivation v) then
            recursiveUpdate a.${n} v
          else
            v
        ) b;
      result =
        if tree.loose == [ ] then
          tree.value
        else if free != null then
          recursiveUpdate (mergeDefs free prefix freeDefs) tree.value
        else if check && tree.value._module.check then
          (
            let
              u = head tree.loose;
            in
            throw "The option `${showLoc u.loc}' does not exist. Definition values:${showDefs u.defs}"
          )
        else
          tree.value;
    in
    {
      config = removeAttrs result [ "_module" ];
      options = optionTree;
      type = types.submoduleWith { inherit modules specialArgs; };
      extendModules =
        more:
        evalModulesAt prefix {
          modules = modules ++ more.modules or [ ];
          specialArgs = specialArgs // more.specialArgs or { };
          inherit check;
        };
    };
in
{
  inherit
    mkOption
    load
    evalModulesAt
    ;
}
