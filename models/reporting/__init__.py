"""Rates with intervals, edit distances, and results as files."""
