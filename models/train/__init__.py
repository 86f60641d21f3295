"""Training of one stage, and export of what was trained."""
