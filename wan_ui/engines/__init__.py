"""Engines: the same checkpoint files in, the same frames out."""
