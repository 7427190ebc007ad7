# A machine that substitutes from caches.
{ config, lib, ... }:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  ours = import ./lib.nix { inherit lib; };
  cfg = config.services.snowbank.client;

  withPriority =
    cache:
    if cache.priority == null then cache.url else "${cache.url}?priority=${toString cache.priority}";
  keys = lib.concatMap (cache: cache.publicKeys) cfg.caches;
in
{
  options.services.snowbank.client = {
    enable = mkEnableOption "substituting from binary caches, so that one that is away slows no build down";

    caches = mkOption {
      default = [ ];
      description = "The caches, besides what is configured elsewhere.";
      example = [
        {
          url = "https://cache.example.org";
          priority = 10;
          publicKeys = [ "cache.example.org-1:cfaPzUAfWBcRkMX13w7TZ7nCwFJpm7nSZy8T0IsaXtE=" ];
        }
      ];
      type = types.listOf (
        types.submodule {
          options = {
            url = mkOption {
              type = types.strMatching "https?://[^/[:space:]]+(/[^?[:space:]]*)?";
              description = "Its address, without a slash at the end of the host.";
            };
            priority = mkOption {
              type = types.nullOr types.ints.unsigned;
              default = null;
              description = "A cache with a lower number is asked first; by default what the cache says itself. cache.nixos.org has 40.";
            };
            publicKeys = mkOption {
              type = types.listOf ours.publicKey;
              default = [ ];
              description = "The keys that it signs with.";
            };
          };
        }
      );
    };

    connectTimeout = mkOption {
      type = types.ints.positive;
      default = 5;
      description = "Seconds after which a cache that does not answer is given up.";
    };

    negativeTtl = mkOption {
      type = types.ints.unsigned;
      default = 60;
      description = ''
        Seconds for which Nix remembers that a cache has not a path. Nix's own default is an hour: what another machine pushes
        meanwhile is built again.
      '';
    };

    netrcFile = mkOption {
      type = types.nullOr ours.secretFile;
      default = null;
      example = "/run/agenix/netrc";
      description = "A netrc with the tokens of private caches: `machine HOST login snowbank password TOKEN`.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.caches != [ ];
        message = "services.snowbank.client.caches is empty: name a cache, or do not enable the client.";
      }
      {
        assertion = lib.all (cache: cache.publicKeys != [ ]) cfg.caches;
        message = "services.snowbank.client.caches: ${
          lib.concatMapStringsSep ", " (cache: cache.url) (
            lib.filter (cache: cache.publicKeys == [ ]) cfg.caches
          )
        } has no publicKeys, so Nix would take nothing from there; the page of the cache shows its key.";
      }
      {
        assertion = !(lib.any ours.isPlaceholder keys);
        message = "services.snowbank.client.caches: ${lib.concatStringsSep ", " (lib.filter ours.isPlaceholder keys)} is a placeholder and not a key, and with it every substitution would fail; the page of the cache shows its key.";
      }
      {
        assertion = lib.length (lib.unique (map (cache: cache.url) cfg.caches)) == lib.length cfg.caches;
        message = "services.snowbank.client.caches names a cache twice.";
      }
    ]
    ++ ours.secretsAreOutside { "services.snowbank.client.netrcFile" = cfg.netrcFile; };

    nix.settings = {
      substituters = map withPriority cfg.caches;
      trusted-public-keys = keys;
      connect-timeout = cfg.connectTimeout;
      # A cache that is away is a reason to build, not to fail.
      fallback = true;
      narinfo-cache-negative-ttl = cfg.negativeTtl;
    }
    // lib.optionalAttrs (cfg.netrcFile != null) { netrc-file = cfg.netrcFile; };
  };
}
