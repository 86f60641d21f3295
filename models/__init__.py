"""How is the detector-and-editor model trained? Data, training and evaluation live here.

Nothing in `aligner_proxy` imports this package; this package imports the segmenter and the prompts from there.
"""
