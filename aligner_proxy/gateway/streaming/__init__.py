"""Streamed responses: held back until they are corrected, or released segment by segment."""
