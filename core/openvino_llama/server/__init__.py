"""The HTTP server. Nothing below this package knows of HTTP."""
