"""Text analysis: segments, facts, contacts, refusals, languages, lists and speakers of plain text."""
