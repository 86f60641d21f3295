"""Rules that every edit must pass before it is delivered."""
