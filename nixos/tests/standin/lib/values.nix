# What values are, and how they are shown in messages.
_self:
let
  inherit (builtins)
    isAttrs
    isList
    isFunction
    isPath
    attrNames
    elem
    head
    length
    concatStringsSep
    hasAttr
    map
    match
    tail
    toJSON
    elemAt
    genList
    foldl'
    ;
  typed = t: v: isAttrs v && v ? _type && v._type == t;
  reverse = l: genList (i: elemAt l (length l - 1 - i)) (length l);
  isDerivation = v: isAttrs v && v ? type && v.type == "derivation";
  unique = l: foldl' (acc: x: if elem x acc then acc else acc ++ [ x ]) [ ] l;
  showLoc =
    loc:
    concatStringsSep "." (
      map (p: if match "[a-zA-Z_][a-zA-Z0-9_'-]*|<[a-z]+>|\\*" p != null then p else toJSON p) loc
    );
  show =
    v:
    if isFunction v then
      "<function>"
    else if isDerivation v then
      "<package ${v.name or "?"}>"
    else if isAttrs v then
      "{ ${concatStringsSep "; " (attrNames v)} }"
    else if isList v then
      "[ ${concatStringsSep " " (map show v)} ]"
    else if isPath v then
      toString v
    else
      toJSON v;
  showDefs = defs: concatStringsSep "" (map (d: "\n- in ${d.file}: ${show d.value}") defs);
  attrByPath =
    path: default: set:
    if path == [ ] then
      set
    else if isAttrs set && hasAttr (head path) set then
      attrByPath (tail path) default set.${head path}
    else
      default;
  setAttrByPath =
    path: value: if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };
in
{
  inherit
    typed
    reverse
    isDerivation
    unique
    showLoc
    show
    showDefs
    attrByPath
    setAttrByPath
    ;
}
