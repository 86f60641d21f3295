"""Pages that change something: examples and heads of objectives, and the policies file."""
