# Conditions, priorities and order of definitions: `mkIf` and its like, and which definitions count in the end.
self:
let
  inherit (builtins)
    isBool
    concatMap
    filter
    map
    mapAttrs
    removeAttrs
    sort
    any
    foldl'
    ;
  inherit (self)
    typed
    show
    ;
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOrder = priority: content: {
    _type = "order";
    inherit priority content;
  };
  defaultPriority = 100;

  # keep the attribute names visible without looking at any condition
  pushDown =
    v:
    if typed "if" v then
      map (mapAttrs (_: mkIf v.condition)) (pushDown v.content)
    else if typed "merge" v then
      concatMap pushDown v.contents
    else if typed "override" v then
      map (mapAttrs (_: mkOverride v.priority)) (pushDown v.content)
    else
      [ v ];
  discharge =
    v:
    if typed "if" v then
      (
        if isBool v.condition then
          (if v.condition then discharge v.content else [ ])
        else
          throw "mkIf: the condition is not a Boolean but ${show v.condition}"
      )
    else if typed "merge" v then
      concatMap discharge v.contents
    else
      [ v ];
  # [{file, value}] -> the definitions that count, without their properties
  settle =
    defs:
    let
      flat = concatMap (
        d:
        map (value: {
          inherit (d) file;
          inherit value;
        }) (discharge d.value)
      ) defs;
      withPrio = map (
        d:
        if typed "override" d.value then
          {
            inherit (d.value) priority;
            inherit (d) file;
            values = [ d.value.content ];
          }
        else
          {
            priority = defaultPriority;
            inherit (d) file;
            values = [ d.value ];
          }
      ) flat;
      alive = filter (d: d.values != [ ]) withPrio;
      best = foldl' (a: d: if d.priority < a then d.priority else a) 9999 alive;
      kept = concatMap (
        d:
        if d.priority == best then
          map (value: {
            inherit (d) file;
            inherit value;
          }) d.values
        else
          [ ]
      ) alive;
      ordered = map (
        d:
        if typed "order" d.value then
          {
            inherit (d) file;
            inherit (d.value) priority;
            value = d.value.content;
          }
        else
          d // { priority = 1000; }
      ) kept;
    in
    map (d: removeAttrs d [ "priority" ]) (
      if any (d: d.priority != 1000) ordered then
        sort (a: b: a.priority < b.priority) ordered
      else
        ordered
    );
in
{
  inherit
    mkIf
    mkMerge
    mkOverride
    mkOrder
    defaultPriority
    pushDown
    discharge
    settle
    ;
}
