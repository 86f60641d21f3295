"""Clients of engines: HTTP, completions servers, replicas, retries and the circuit breaker."""
