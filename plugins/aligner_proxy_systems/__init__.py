"""The systems that come with aligner-proxy, each a plugin of its own."""
