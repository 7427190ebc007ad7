# refused: services.snowbank.agent.to
{ services.snowbank.agent.enable = true; }
