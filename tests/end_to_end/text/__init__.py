"""Text over HTTP: real models, a real server process, real clients."""
