# The alerts and the dashboard of `nixos/monitoring`, loaded by a Prometheus and a Grafana on this machine.
{ config, lib, ... }:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  cfg = config.fleet.monitoring;
in
{
  options.fleet.monitoring = {
    enable = mkEnableOption "a Prometheus that scrapes servers and agents of Snowbank, with its alerts";

    targets = mkOption {
      type = types.listOf (types.strMatching "[^/[:space:]]+:[0-9]+");
      default = [ ];
      example = [
        "cache.example.org:5443"
        "runner-1:9100"
      ];
      description = "Servers and agents, HOST:PORT.";
    };

    scheme = mkOption {
      type = types.enum [
        "http"
        "https"
      ];
      default = "http";
      description = "How they are asked.";
    };

    grafana = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a Grafana here shows the dashboard.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.targets != [ ];
        message = "fleet.monitoring.targets is empty: name the servers and agents to scrape, such as \"cache:5000\".";
      }
    ];
    services.prometheus = {
      enable = true;
      ruleFiles = [ ../monitoring/rules.yml ];
      scrapeConfigs = [
        {
          job_name = "snowbank";
          inherit (cfg) scheme;
          static_configs = [ { inherit (cfg) targets; } ];
        }
      ];
      exporters.node.enable = true;
    };
    services.grafana = mkIf cfg.grafana {
      enable = true;
      provision = {
        enable = true;
        datasources.settings.datasources = [
          {
            name = "Prometheus";
            type = "prometheus";
            url = "http://127.0.0.1:9090";
            isDefault = true;
          }
        ];
        dashboards.settings.providers = [
          {
            name = "Snowbank";
            options.path = ../monitoring/dashboard.json;
          }
        ];
      };
    };
  };
}
