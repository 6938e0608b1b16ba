"""The API for OpenAI's clients, without a server."""
