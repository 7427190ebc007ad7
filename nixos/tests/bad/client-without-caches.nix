# refused: services.snowbank.client.caches is empty
{ services.snowbank.client.enable = true; }
