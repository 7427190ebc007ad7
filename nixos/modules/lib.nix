# What several modules here need: types of what is checked where it is written, and what a unit may not do.
{ lib }:
let
  inherit (lib) types;
in
rec {
  # `name:base64` of 32 bytes, as `nix key convert-secret-to-public` writes it.
  publicKey = types.strMatching "[^:[:space:]]+:[A-Za-z0-9+/]{43}=" // {
    description = "public key, name:base64 as in trusted-public-keys";
  };

  # A placeholder has the form of a key, and no substitution works with it.
  isPlaceholder =
    key:
    let
      secret = lib.last (lib.splitString ":" key);
      letters = lib.unique (lib.stringToCharacters (lib.removeSuffix "=" secret));
    in
    builtins.length letters < 8 || lib.hasInfix "PLACEHOLDER" (lib.toUpper key);

  # A file that is there when the machine runs. A path of Nix would be copied into the store, which everybody can read.
  secretFile = types.strMatching "/.*" // {
    description = "absolute path, as a string, of a file outside of the Nix store";
  };
  isInStore = file: lib.hasPrefix "${builtins.storeDir}/" file;

  # The assertions of these secrets, by the names of the options that hold them.
  secretsAreOutside = lib.mapAttrsToList (
    option: file: {
      assertion = file == null || !isInStore file;
      message = "${option}: ${toString file} is in the Nix store, which everybody can read; name a file outside, such as one below /run/agenix or /run/secrets.";
    }
  );

  # For every service here; each takes back what it cannot do without.
  hardened = {
    AmbientCapabilities = "";
    CapabilityBoundingSet = "";
    DevicePolicy = "closed";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NoNewPrivileges = true;
    PrivateDevices = true;
    PrivateMounts = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProcSubset = "pid";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_INET6"
      "AF_UNIX"
    ];
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
      "~@resources"
    ];
    UMask = "0077";
  };
}
