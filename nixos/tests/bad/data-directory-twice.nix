# refused: data_dir and listen are the options dataDir and listen of the module
{
  services.snowbank = {
    enable = true;
    settings.data_dir = "/srv";
  };
}
