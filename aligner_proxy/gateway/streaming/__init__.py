"""Streamed responses: held back until they are corrected, or released sentence by sentence."""
