"""The policies file: its schema, its loader, and the resolver that finds the policy of a request."""
