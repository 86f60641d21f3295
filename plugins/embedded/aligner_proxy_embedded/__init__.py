"""The embedded aligner of aligner-proxy: weights and their card, which aligner-proxy finds by this package's name."""
