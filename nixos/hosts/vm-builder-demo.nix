# The builder, to try it on one's own machine:
#
#     mkdir shared && ssh-keygen -q -t ed25519 -N '' -f builder-key && cp builder-key.pub shared/authorized_keys
#     SHARED_DIR=$PWD/shared nix run .#vm-vm-builder-demo -- --port 2322:22
#     nix build --max-jobs 0 --builders "ssh-ng://builder@127.0.0.1:2322 x86_64-linux $PWD/builder-key" nixpkgs#hello
#
# It has no password and no key of anybody but who is named in `shared`.
{ lib, pkgs, ... }:
{
  imports = [ ./vm-builder.nix ];
  networking.hostName = lib.mkForce "vm-builder-demo";
  # It is nobody's substituter and nobody's client: what it builds is all that it knows.
  services.snowbank.client.enable = lib.mkForce false;
  # sshd takes such a program from a directory alone that nobody but root writes to.
  environment.etc."ssh/keys-of-the-demo" = {
    mode = "0555";
    text = ''
      #!${pkgs.bash}/bin/bash
      exec ${pkgs.coreutils}/bin/cat /tmp/shared/authorized_keys
    '';
  };
  services.openssh.authorizedKeysCommand = "/etc/ssh/keys-of-the-demo";
  services.openssh.authorizedKeysCommandUser = "nobody";
}
