# What one machine builds another substitutes, over TLS with an authority of one's own, and a cache that is away slows
# nothing down.
{ modules }:
{ pkgs, ... }:
let
  # Made for each run; no key of it is anywhere but in this test.
  authority = pkgs.runCommand "authority" { nativeBuildInputs = [ pkgs.snowbank ]; } ''
    mkdir $out && cd $out
    snowbank ca init --domain example.test --dir $out/ca
    cp $out/ca/root.pem $out/root.pem
  '';
  trust = {
    imports = modules;
    fleet.internalCa = {
      enable = true;
      domain = "example.test";
      rootCertificates = [ "${authority}/root.pem" ];
    };
    virtualisation.writableStore = true;
  };
in
{
  name = "snowbank-push-and-substitute";

  nodes.cache = {
    imports = [ trust ];
    networking.hosts."127.0.0.1" = [ "cache.example.test" ];
    services.snowbank = {
      enable = true;
      listen = [
        "127.0.0.1:5000"
        "https://0.0.0.0:5443"
      ];
      openFirewall = true;
      settings.cache.default.push = "token";
      settings.tls = {
        certificate_from = "internal-ca";
        names = [ "cache.example.test" ];
        ca_certificate = "/etc/snowbank-ca/intermediate.pem";
        ca_key = "/etc/snowbank-ca/intermediate.key";
      };
    };
    # In the store, because it is of this test alone.
    system.activationScripts.authority = ''
      install -d -m 750 -g snowbank /etc/snowbank-ca
      install -m 640 -g snowbank ${authority}/ca/intermediate.pem ${authority}/ca/intermediate.key /etc/snowbank-ca/
    '';
  };

  nodes.builder = {
    imports = [ trust ];
    services.snowbank.agent = {
      enable = true;
      to = "https://cache.example.test:5443";
      tokenFile = "/run/push-token";
    };
  };

  nodes.second.imports = [ trust ];

  testScript = ''
    start_all()
    cache.wait_for_unit("snowbank.service")
    cache.wait_for_open_port(5443)
    address = cache.succeed("ip -4 -o addr show eth1").split()[3].split("/")[0]
    key = cache.succeed("curl -s http://127.0.0.1:5000/ | grep -o '[^ ]*-1:[A-Za-z0-9+/]*=' | head -1").strip()
    token = cache.succeed(
        "sudo -u snowbank snowbank token create --cache default --scope push,pull --expires 1d"
    ).strip()

    for machine in [builder, second]:
        machine.succeed(f"echo '{address} cache.example.test' >> /etc/hosts")

    with subtest("without its token the agent does not run, and builds go on"):
        builder.fail("systemctl is-active snowbank-agent")
        builder.succeed("journalctl -u snowbank-agent | grep /run/push-token")

    builder.succeed(f"install -m 600 /dev/stdin /run/push-token <<< '{token}'")
    builder.succeed("systemctl start snowbank-agent")
    expression = "derivation { name = \"made\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"echo made > $out\" ]; }"
    path = builder.succeed(f"nix-build --no-out-link -E '{expression}'").strip()
    builder.succeed("snowbank queue wait --timeout 60s")

    with subtest("another machine has it from the cache, and not without the key"):
        copy = f"nix copy --from https://cache.example.test:5443 {path} --extra-experimental-features nix-command"
        second.fail(copy)
        second.succeed(f"{copy} --option trusted-public-keys {key}")
        second.succeed(f"grep made {path}")

    with subtest("a cache that is away slows no build down"):
        cache.succeed("systemctl stop snowbank.socket snowbank.service || systemctl stop snowbank.service")
        other = expression.replace("made", "other")
        builder.succeed(f"timeout 60 nix-build --no-out-link -E '{other}'")
        builder.succeed("snowbank queue ls | grep other")
  '';
}
