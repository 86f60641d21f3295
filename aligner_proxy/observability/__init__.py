"""Logs, traces and metrics, which hold ids, reasons, lengths and counts, and never text."""
