# Three machines, each the others' peer: what is pushed to one is had from each, and one that is away is no hindrance.
{ modules }:
{ lib, ... }:
let
  keys = import ./keys.nix;
  names = builtins.attrNames keys;
  node = name: {
    imports = modules;
    virtualisation.writableStore = true;
    environment.etc."signing-key".text = keys.${name}.secret;
    services.snowbank = {
      enable = true;
      listen = [ "0.0.0.0:5000" ];
      openFirewall = true;
      signingKeyFiles = [ "/etc/signing-key" ];
      settings.cache.default = {
        push = "open";
        push_open_to_network = true;
        peers = map (peer: "http://${peer}:5000") (lib.remove name names);
        trusted_keys = map (peer: keys.${peer}.public) (lib.remove name names);
      };
    };
  };
in
{
  name = "snowbank-three-nodes";
  nodes = lib.genAttrs names node;
  testScript = ''
    start_all()
    for machine in [one, two, three]:
        machine.wait_for_unit("snowbank.socket")
        machine.wait_until_succeeds("curl -sf http://127.0.0.1:5000/health")

    path = one.succeed("echo replicated > /tmp/replicated; nix-store --add /tmp/replicated").strip()
    one.succeed(f"snowbank push {path}")
    digits = path.split("/")[-1][:32]

    for machine in [two, three]:
        machine.wait_until_succeeds(f"curl -sf http://127.0.0.1:5000/{digits}.narinfo", timeout=60)
        copy = f"nix copy --from http://127.0.0.1:5000 {path} --extra-experimental-features nix-command"
        machine.succeed(f"{copy} --option trusted-public-keys '${keys.one.public}'")

    with subtest("one that is away is no hindrance"):
        one.crash()
        two.succeed("timeout 20 curl -s http://127.0.0.1:5000/00000000000000000000000000000000.narinfo | grep 'not found'")
        three.succeed(f"curl -sf http://127.0.0.1:5000/{digits}.narinfo")
  '';
}
