"""Endpoints of the gateway's own, in LiteLLM's application: answers that a client brings, judged like the traffic."""
