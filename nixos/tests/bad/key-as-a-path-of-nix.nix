# refused: services.snowbank.signingKeyFiles
# refused: is not of type
{
  services.snowbank = {
    enable = true;
    signingKeyFiles = [ ./key-as-a-path-of-nix.nix ];
  };
}
