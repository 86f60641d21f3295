"""HTTP server of an engine."""
