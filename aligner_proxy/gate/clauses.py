"""Clauses of a rewritten sentence: which of them an edit left word for word, so that only their facts have to stay.

A flagged sentence may be removed with all its facts. If an edit leaves one of its clauses as it was and changes or
removes the others, it does less than that: the facts of the clauses that are gone may have been the fault ("... and
I'll take another 30 % off"). If no clause is left, the sentence was rewritten, and all its facts count.
"""

from __future__ import annotations

import re
from itertools import pairwise

from aligner_proxy.text.reading_form import ENGLISH_CONNECTIVES

_MIN_WORDS = 2
"""Fewest words of a clause by which an edit can be seen to have left it."""
# Words of several languages that join clauses, and are no other word of any of them (Dutch `of` is left out).
_CONNECTIVE_WORDS = (
    rf"{ENGLISH_CONNECTIVES}|whose|"
    r"und|aber|oder|weil|obwohl|während|falls|wenn|dass|et|mais|ou|donc|parce|quoique|tandis|qui|"
    r"y|pero|porque|aunque|mientras|que|e|perché|che|maar|omdat"
)
# Both match from the first character on: else a long run would be read anew from every character.
_SPACE = r"(?<!\s)\s++"
_STOPS = r",;:\u2013\u2014\u2026"
# What is in brackets, such as a source, belongs to the clause before it.
_BOUNDARY = re.compile(
    rf"\([^()\n]*\)|(?P<end>(?<![{_STOPS}])[{_STOPS}]++\s++|{_SPACE}[-\u2013\u2014]\s++|{_SPACE}(?=(?:{_CONNECTIVE_WORDS})\s))",
    re.IGNORECASE,
)
_CONNECTIVES = re.compile(rf"(?:{_CONNECTIVE_WORDS})", re.IGNORECASE)
_BRACKETED = re.compile(r"\([^()\n]*\)")
_WORD = re.compile(r"[\w%€$£°]+(?:[.,:'\u2019/@-]\w+)*")


def unchanged_clauses(original: str, rewritten: str) -> str:
    """The clauses of `original` whose words occur consecutively in `rewritten`, as one text; empty without any."""
    outside = _BRACKETED.sub("", original)
    new_words = _words(rewritten)
    # an aside is gone, and nothing else has changed
    if outside != original and _words(outside) == new_words:
        return outside
    return " ".join(clause for clause in _split_clauses(original) if _occurs_in(_words(clause), new_words))


def _split_clauses(sentence: str) -> list[str]:
    """The clauses of a sentence, which add up to it; each is cut behind its boundary, but never inside brackets."""
    bounds = [0, *(match.end() for match in _BOUNDARY.finditer(sentence) if match["end"]), len(sentence)]
    return [sentence[start:end] for start, end in pairwise(bounds) if start < end]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _occurs_in(clause: list[str], words: list[str]) -> bool:
    """Whether the words of a clause occur consecutively in `words`, perhaps without the word that joins the clause."""
    if clause and _CONNECTIVES.fullmatch(clause[0]):
        clause = clause[1:]
    if len(clause) < _MIN_WORDS:
        return False
    return any(words[start : start + len(clause)] == clause for start in range(len(words) - len(clause) + 1))
