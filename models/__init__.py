"""Data, training and evaluation of the detector-and-editor model.

Nothing in `aligner_proxy` imports this package; this package imports the segmenter and the prompts from there.
"""

import os

# TRL tells the hub of every trainer that is made, which is nobody's business and waits where there is no network.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
