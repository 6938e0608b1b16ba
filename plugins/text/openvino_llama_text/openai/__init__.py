"""An API for clients that were written for OpenAI's (https://platform.openai.com/docs/api-reference)."""
