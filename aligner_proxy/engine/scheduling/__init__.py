"""Which sequences run in the next forward pass, and which KV-cache blocks they hold."""
