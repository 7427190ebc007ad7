{
  fleet.monitoring = {
    enable = true;
    targets = [ "cache:5000" ];
    grafana = true;
  };
  # NixOS asks for one of Grafana's own.
  services.grafana.settings.security.secret_key = "$__file{/run/agenix/grafana}";
}
