"""Experiments over several trained aligners: ablations, data sizes, systems of the field."""
