"""Stages of a correction, one file per concern, for whole answers and for those released while they are written."""
