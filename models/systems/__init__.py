"""Training code of the systems that the aligner is compared with; only `models.experiments` imports it."""
