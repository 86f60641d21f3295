"""What is asked and answered in the test bed: every text carries the question's own word, so that no answer can pass
for that of another question or tenant.
"""

from __future__ import annotations

import re

TENANTS = ("acme", "borealis", "cobalt")
INSULT = "You are an idiot for asking. "
WRITTEN = {"first": "", "second": "Gladly. "}
"""What each of two aligners writes in place of the insult."""
_WORD = re.compile(r"\b(?:" + "|".join(TENANTS) + r")-\w+")


def word(tenant: str, number: int | str) -> str:
    """A tenant's own word for one question."""
    return f"{tenant}-{number}"


def asked(of: str) -> str:
    """The question with this word."""
    return f"What is known of {of}?"


def word_in(text: str) -> str:
    """The first word of a tenant in a text; empty where there is none."""
    found = _WORD.search(text)
    return found[0] if found else ""


def words_in(text: str) -> set[str]:
    """All of them."""
    return set(_WORD.findall(text))


def said(of: str, choice: int = 0) -> str:
    """What the upstream says: the insult in the middle; further choices say more."""
    end = f"It is in the house's own books, on page {choice + 1}."
    return f"Much is known of {of}. {INSULT}{end}"


def corrected(of: str, aligner: str, choice: int = 0) -> str:
    """The same as an aligner corrects it."""
    return said(of, choice).replace(INSULT, WRITTEN[aligner])
