# All modules. Nothing is on before its `enable` is.
{
  imports = [
    ./agenix.nix
    ./agent.nix
    ./apt-cache.nix
    ./builders.nix
    ./client.nix
    ./gitlab-runner.nix
    ./harmonia.nix
    ./internal-ca.nix
    ./jenkins.nix
    ./monitoring.nix
    ./nix-settings.nix
    ./proxy.nix
    ./server.nix
    ./storage.nix
    ./vm-runner.nix
    ./yocto-cache.nix
  ];
}
