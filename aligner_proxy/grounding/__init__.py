"""Answers held to the operator's own facts: what a reference says, and where an answer says something else.

`sentences.py` (read it first) replaces a fact of an answer by that of the reference; `facts.py` reads facts by their
form, `page.py` takes a reference apart, `matching.py` finds what speaks of the same.
"""
