"""Alignment systems that ship with aligner-proxy; each is a plugin of its own."""
