"""Weights of an aligner: where they come from, what they are, and how they are stored."""
