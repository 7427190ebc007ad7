# refused: fleet.monitoring.targets is empty
{ fleet.monitoring.enable = true; }
