# For machines that had Harmonia: with one line what its options say counts for Snowbank.
{ config, lib, ... }:
let
  inherit (lib) mkIf mkOption types;
  theirs = config.services.harmonia.cache;
  bind = theirs.settings.bind or "[::]:5000";
in
{
  options.services.snowbank.insteadOfHarmonia = mkOption {
    type = types.bool;
    default = false;
    description = ''
      Whether what `services.harmonia.cache` is set to (its keys, its address and its priority) is used for Snowbank, in the place of
      Harmonia. Take `services.harmonia.cache.enable` away.
    '';
  };

  config = mkIf config.services.snowbank.insteadOfHarmonia {
    assertions = [
      {
        assertion = !theirs.enable;
        message = "services.snowbank.insteadOfHarmonia is set, and so is services.harmonia.cache.enable: both would listen at ${bind}; take the latter away.";
      }
    ];
    services.snowbank = {
      enable = true;
      listen = [ bind ];
      signingKeyFiles = map toString theirs.signKeyPaths;
      settings.cache.default.priority = theirs.settings.priority or 30;
    };
  };
}
