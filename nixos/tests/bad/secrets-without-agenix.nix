# refused: fleet.secrets needs agenix: import the module of its flake
{ fleet.secrets.cache-signing-key = ./key.age; }
