"""Odd answers of upstreams: their tables, the upstream that gives them, the engine that finds what is in them."""
