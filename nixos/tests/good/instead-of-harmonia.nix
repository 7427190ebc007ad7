{ config, ... }:
{
  services.harmonia.cache.signKeyPaths = [ "/run/agenix/harmonia-key" ];
  services.harmonia.cache.settings = {
    bind = "127.0.0.1:5009";
    priority = 20;
  };
  services.snowbank.insteadOfHarmonia = true;
  # All of it is taken over.
  assertions = [
    {
      assertion =
        config.services.snowbank.listen == [ "127.0.0.1:5009" ]
        && config.services.snowbank.signingKeyFiles == [ "/run/agenix/harmonia-key" ]
        && config.services.snowbank.settings.cache.default.priority == 20;
      message = "what Harmonia was told is not what Snowbank is told";
    }
  ];
}
