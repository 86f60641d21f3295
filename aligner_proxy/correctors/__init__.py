"""Correctors that replace the aligner on the engine."""
