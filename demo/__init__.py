"""The demo: a real local model, the gateway in front of it, and the official client; `make demo` runs it."""
