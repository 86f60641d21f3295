"""Measurements of a trained aligner and of the gate."""
