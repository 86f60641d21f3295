"""Correction of one answer: from eligibility to the delivered outcome."""
