# refused: services.snowbank.signingKeyFiles[0]
# refused: is in the Nix store, which everybody can read
{
  services.snowbank = {
    enable = true;
    signingKeyFiles = [ "${builtins.storeDir}/0c5p1gm5v1cwwdgz2vfqwdlkyjrkh2l5-key" ];
  };
}
