# refused: is not encrypted (.age), and would be in the store for everybody to read
{ lib, ... }:
{
  # As the module of agenix declares it.
  options.age.secrets = lib.mkOption { type = lib.types.attrsOf lib.types.raw; };
  config.fleet.secrets.cache-signing-key = ./secret-that-is-not-encrypted.nix;
}
