# A runner that serves what it built to the others: cache, agent, client, and the GitLab runner itself.
{ config, lib, ... }:
let
  fleet = import ./fleet.nix;
  name = config.networking.hostName;
  others = lib.filterAttrs (other: _: lib.elem other config.fleet.peers) fleet.caches;
in
{
  imports = [ ./common.nix ];

  options.fleet.peers = lib.mkOption {
    type = lib.types.listOf (lib.types.enum (builtins.attrNames fleet.caches));
    default = [ ];
    description = "The hosts whose caches this one substitutes from.";
  };

  config = {
    assertions = [
      {
        assertion = !(lib.elem name config.fleet.peers);
        message = "fleet.peers of ${name} names the host itself: a machine does not substitute from itself.";
      }
    ];

    services.snowbank = {
      enable = true;
      signingKeyFiles = [ "/run/agenix/cache-signing-key" ];
      zfs.enable = true;
      settings = {
        zfs.dataset = "cache/snowbank";
        cache.default.push = "token";
        cache.default.keep_unused = "90d";
      };
    };
    services.snowbank.client = {
      enable = others != { };
      caches = lib.mapAttrsToList (_: cache: {
        inherit (cache) url publicKeys;
        priority = 10;
      }) others;
    };
    services.snowbank.agent = {
      enable = true;
      to = "http://127.0.0.1:5000";
      tokenFile = "/run/agenix/push-token";
    };
    fleet.gitlabRunner = {
      enable = true;
      tokenFile = "/run/agenix/gitlab-runner";
    };
    fleet.storage.enable = true;
  };
}
