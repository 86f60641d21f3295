"""LiteLLM guardrail: its hooks, the state of a request, streams, reload and process supervision."""
