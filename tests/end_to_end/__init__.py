"""Real models, a real server process, a real HTTP client."""
