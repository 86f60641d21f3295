"""Stages of a correction: one file a concern, for whole answers and for those that go out while they are written."""
