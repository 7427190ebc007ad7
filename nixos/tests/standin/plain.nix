# A value as data that can be written as JSON: what is not data is named, and of a derivation that is a file its text is.
let
  plain =
    value:
    if builtins.isFunction value then
      "<function>"
    else if builtins.isAttrs value then
      if value ? text && value ? outPath then
        { inherit (value) text; }
      else if value ? outPath then
        builtins.unsafeDiscardStringContext value.outPath
      else
        builtins.mapAttrs (_: plain) value
    else if builtins.isList value then
      map plain value
    else if builtins.isPath value then
      toString value
    else if builtins.isString value then
      builtins.unsafeDiscardStringContext value
    else
      value;
in
plain
