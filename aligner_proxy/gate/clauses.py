"""Clauses of a rewritten sentence: those that an edit left word for word, so that only their facts have to stay.

A flagged sentence may be removed with all its facts. An edit that leaves one of its clauses as it was, and changes or
removes the other clauses, does less than that. So it may remove the facts of these clauses, which may have been the
fault ("... and I'll take another 30 % off"). If no clause is left as it was, all facts of the sentence must stay.
"""

from __future__ import annotations

import re
from itertools import pairwise

from aligner_proxy.text.reading_form import ENGLISH_CONNECTIVES

_MIN_WORDS = 2
"""Fewest words that show that a clause was left as it was."""
# Words of several languages that join clauses, and are no other word of any of them (Dutch `of` is left out).
_CONNECTIVE_WORDS = (
    rf"{ENGLISH_CONNECTIVES}|whose|"
    r"und|aber|oder|weil|obwohl|während|falls|wenn|dass|et|mais|ou|donc|parce|quoique|tandis|qui|"
    r"y|pero|porque|aunque|mientras|que|e|perché|che|maar|omdat"
)
# Both match from the first character on: else a long run would be read anew from every character.
_SPACE = r"(?<!\s)\s++"
_CLAUSE_SIGNS = r",;:\u2013\u2014\u2026"
# What is in brackets, such as a source, belongs to the clause before it.
_CLAUSE_BOUNDARY = re.compile(
    rf"\([^()\n]*\)|(?P<end>(?<![{_CLAUSE_SIGNS}])[{_CLAUSE_SIGNS}]++\s++"
    rf"|{_SPACE}[-\u2013\u2014]\s++|{_SPACE}(?=(?:{_CONNECTIVE_WORDS})\s))",
    re.IGNORECASE,
)
_CONNECTIVE = re.compile(rf"(?:{_CONNECTIVE_WORDS})", re.IGNORECASE)
_BRACKETED = re.compile(r"\([^()\n]*\)")
_WORD = re.compile(r"[\w%€$£°]+(?:[.,:'\u2019/@-]\w+)*")


def unchanged_clauses(original: str, rewritten: str) -> str:
    """The clauses of `original` whose words occur consecutively in `rewritten`, as one text; empty if none do."""
    outside_brackets = _BRACKETED.sub("", original)
    new_words = _words(rewritten)
    # if only words in brackets were removed, everything else is unchanged
    if outside_brackets != original and _words(outside_brackets) == new_words:
        return outside_brackets
    return " ".join(clause for clause in _split_clauses(original) if _occurs_in(_words(clause), new_words))


def _split_clauses(sentence: str) -> list[str]:
    """Cut a sentence into clauses, each with the sign or space that ends it; brackets are never cut."""
    bounds = [0, *(match.end() for match in _CLAUSE_BOUNDARY.finditer(sentence) if match["end"]), len(sentence)]
    return [sentence[start:end] for start, end in pairwise(bounds) if start < end]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _occurs_in(clause: list[str], words: list[str]) -> bool:
    """Whether the words of a clause occur consecutively in `words`; an "and" before the clause may be missing."""
    if clause and _CONNECTIVE.fullmatch(clause[0]):
        clause = clause[1:]
    if len(clause) < _MIN_WORDS:
        return False
    return any(words[start : start + len(clause)] == clause for start in range(len(words) - len(clause) + 1))
