"""The gateway's own endpoints in LiteLLM's application; they judge answers that a client sends."""
