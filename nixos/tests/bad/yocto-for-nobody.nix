# refused: fleet.yoctoCache.members: there is no user jenkins on this machine
{
  fleet.yoctoCache = {
    enable = true;
    members = [ "jenkins" ];
  };
}
