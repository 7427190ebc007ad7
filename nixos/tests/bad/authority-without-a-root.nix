# refused: fleet.internalCa.rootCertificates is empty
{ fleet.internalCa.enable = true; }
