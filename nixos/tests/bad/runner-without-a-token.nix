# refused: fleet.gitlabRunner.tokenFile is not set, so there would be no runner
{ fleet.gitlabRunner.enable = true; }
