{ config, lib, ... }:
{
  # As the module of agenix declares it.
  options.age.secrets = lib.mkOption { type = lib.types.attrsOf lib.types.raw; };
  config.fleet.secrets.cache-signing-key = ./cache-signing-key.age;
  config.services.snowbank = {
    enable = true;
    signingKeyFiles = [ "/run/agenix/cache-signing-key" ];
  };
  config.assertions = [
    {
      assertion = config.age.secrets.cache-signing-key.file == ./cache-signing-key.age;
      message = "agenix is not told of it";
    }
  ];
}
