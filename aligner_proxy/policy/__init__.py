"""The policies file: its schema, how it is loaded, and which policy a request gets."""
