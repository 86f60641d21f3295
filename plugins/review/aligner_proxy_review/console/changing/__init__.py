"""Pages that change something: what objectives are taught by, and the policies file."""
