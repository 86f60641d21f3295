"""MetaAlign: examples from preferences in a user's words, DPO, and adherence to preferences."""
