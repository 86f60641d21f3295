"""Aligner (PKU): single-purpose pairs, identity warm-up, and a stand-in for the released weights."""
