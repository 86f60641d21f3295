"""Two references that say different things of the same: one sentence in both, with another fact in it."""

from __future__ import annotations

from collections.abc import Mapping

from aligner_proxy_grounding.facts import FactKind
from aligner_proxy_grounding.page import SAME_SENTENCE, ReferencePage, Statement

_FEWEST = 2
"""Words that a sentence must have for it to be known again."""
_Key = tuple[FactKind, str, frozenset[str]]


def find_contradiction(one: ReferencePage, other: ReferencePage) -> tuple[Statement, Statement] | None:
    """The first two statements that contradict each other: of the same words, with one fact of the kind, and another.

    Sentences in other words are not compared: what is certain is refused, what is likely is not.
    """
    statements = _statements_by_words(one)
    for key, statement in _statements_by_words(other).items():
        first = statements.get(key)
        if first is not None and not first.fact.agrees(statement.fact):
            return first, statement
    return None


def _statements_by_words(page: ReferencePage) -> Mapping[_Key, Statement]:
    """The statements with one fact of their kind by the words of their sentence; of those that recur, none."""
    statements: dict[_Key, Statement | None] = {}
    for statement in page.statements:
        words = frozenset(word for word, weight in statement.about.items() if weight >= SAME_SENTENCE)
        if statement.alone and len(words) >= _FEWEST:
            key = (statement.fact.kind, statement.fact.unit if statement.fact.kind is FactKind.COUNT else "", words)
            statements[key] = None if key in statements else statement
    return {key: statement for key, statement in statements.items() if statement is not None}
