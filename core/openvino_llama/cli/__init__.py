"""``ovllama``, the command line."""
