"""Data, training and evaluation of the detector-and-editor model.

Nothing in `aligner_proxy` imports this package; this package imports the segmenter and the prompts from there.
"""
