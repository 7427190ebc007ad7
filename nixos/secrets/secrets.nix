# Which keys may decrypt what, as agenix reads it. Those of hosts are the ones that their sshd has, which
# `ssh-keyscan -t ed25519 HOST` shows; the two here are of the tests alone.
let
  keyOf =
    file:
    let
      parts = builtins.match "(ssh-ed25519 [A-Za-z0-9+/=]+).*" (builtins.readFile file);
    in
    builtins.head parts;
  one = keyOf ./tests-only/host-one.pub;
  two = keyOf ./tests-only/host-two.pub;
in
{
  # Each host has a key of its own to sign with: one that is stolen says nothing in another's name.
  "cache-signing-key-one.age".publicKeys = [ one ];
  "cache-signing-key-two.age".publicKeys = [ two ];
  # The runner's token is that of both.
  "gitlab-runner.age".publicKeys = [
    one
    two
  ];
}
