"""Contradictions between two references: the same sentence in both, but with another value."""

from __future__ import annotations

from collections.abc import Mapping

from aligner_proxy_grounding.facts import FactKind
from aligner_proxy_grounding.page import ReferencePage, Statement
from aligner_proxy_grounding.passages import SAME_SENTENCE

_FEWEST = 2
"""Least number of words in a sentence; shorter sentences are too unspecific to be compared."""
_Key = tuple[FactKind, str, frozenset[str]]
"""Kind of the fact, what it counts (only for counts), and the words of its sentence."""


def find_contradiction(one: ReferencePage, other: ReferencePage) -> tuple[Statement, Statement] | None:
    """Return the first two statements that contradict each other; None without any.

    They contradict if their sentences have the same words, each has one fact of the kind, and the values differ.
    Sentences in other words are not compared, so only certain contradictions are refused.
    """
    statements = _statements_by_words(one)
    for key, statement in _statements_by_words(other).items():
        first = statements.get(key)
        if first is not None and not first.fact.agrees(statement.fact):
            return first, statement
    return None


def _statements_by_words(page: ReferencePage) -> Mapping[_Key, Statement]:
    """Index statements by kind and words of their sentence, leaving out ambiguous ones.

    A statement is ambiguous if its sentence has several facts of the kind, or if the same words recur on the page.
    """
    statements: dict[_Key, Statement | None] = {}
    for statement in page.statements:
        words = frozenset(word for word, weight in statement.about.items() if weight >= SAME_SENTENCE)
        if statement.alone and len(words) >= _FEWEST:
            key = (statement.fact.kind, statement.fact.unit if statement.fact.kind is FactKind.COUNT else "", words)
            statements[key] = None if key in statements else statement
    return {key: statement for key, statement in statements.items() if statement is not None}
