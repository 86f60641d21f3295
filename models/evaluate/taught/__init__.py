"""Objectives taught by a few sentences: the study over kinds that no aligner was trained on."""
