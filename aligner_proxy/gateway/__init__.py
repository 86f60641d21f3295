"""The LiteLLM guardrail: its hooks, request state, streams, reload of files, and process supervision."""
