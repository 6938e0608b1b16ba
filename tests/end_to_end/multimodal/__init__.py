"""Pictures and texts over HTTP: real models, a real server process, real clients."""
