"""A correcting LLM gateway: a LiteLLM guardrail whose small local aligner edits answers.

Importing this package loads nothing heavy; start reading at `pipeline/pipeline.py`.
"""

__version__ = "0.2.0"
