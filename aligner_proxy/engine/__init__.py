"""The engine: an aligner's model, its scheduling and decoding, its HTTP server and its clients."""
