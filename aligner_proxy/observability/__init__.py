"""Logs, traces and metrics, which contain ids, reasons, lengths and counts, but never text."""
