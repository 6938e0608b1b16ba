"""Encoder-decoders: an image encoder runs once, and a text decoder that attends to it generates token after token."""
