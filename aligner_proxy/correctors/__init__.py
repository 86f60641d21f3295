"""Correctors that work in place of the aligner on the engine."""
