"""Weights of an aligner: finding, checking, preparing and storing them."""
