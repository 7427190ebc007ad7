# What every host of the example fleet has.
{ lib, pkgs, ... }:
let
  fleet = import ./fleet.nix;
in
{
  networking.domain = fleet.domain;
  fleet.internalCa = {
    enable = true;
    inherit (fleet) domain;
    # An example, whose key nobody has: put your own here.
    rootCertificates = [ ./example-root.pem ];
  };
  fleet.nix.enable = true;
  services.openssh = {
    enable = true;
    settings.PasswordAuthentication = false;
    settings.PermitRootLogin = "prohibit-password";
  };
  environment.systemPackages = [
    pkgs.git
    pkgs.htop
    pkgs.jq
    pkgs.tmux
    pkgs.vim
  ];
  boot.loader.systemd-boot.enable = lib.mkDefault true;
  boot.loader.efi.canTouchEfiVariables = lib.mkDefault true;
  system.stateVersion = "26.05";
}
