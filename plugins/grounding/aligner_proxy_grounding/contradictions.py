"""Search for contradictions between two references: the same sentence in both, but with another value."""

from __future__ import annotations

from collections.abc import Mapping

from aligner_proxy_grounding.facts import FactKind
from aligner_proxy_grounding.page import ReferencePage, Statement
from aligner_proxy_grounding.passages import SAME_SENTENCE

_MIN_WORDS = 2
"""Sentences with fewer words are too unspecific to be compared."""
_SentenceKey = tuple[FactKind, str, frozenset[str]]
"""(kind of the fact, what it counts, or "" for other kinds, stems of the words of its sentence)."""


def find_contradiction(one: ReferencePage, other: ReferencePage) -> tuple[Statement, Statement] | None:
    """Return the first statements that contradict each other, of `one` and of `other`; None if there are none.

    Two statements contradict each other if their sentences have the same words and one fact each of the same kind, and
    the values differ. Sentences in different words are not compared, so that a contradiction found is certain.
    """
    statements = _statements_by_words(one)
    for key, other_statement in _statements_by_words(other).items():
        statement = statements.get(key)
        if statement is not None and not statement.fact.agrees(other_statement.fact):
            return statement, other_statement
    return None


def _statements_by_words(page: ReferencePage) -> Mapping[_SentenceKey, Statement]:
    """Index the statements of a page by the kind of their fact and the words of their sentence, without ambiguous ones.

    A statement is ambiguous if its sentence has several facts of this kind, or if another sentence of the page has the
    same words.
    """
    statements: dict[_SentenceKey, Statement | None] = {}
    for statement in page.statements:
        fact = statement.fact
        words = frozenset(word for word, weight in statement.word_weights.items() if weight >= SAME_SENTENCE)
        if statement.is_only_of_kind and len(words) >= _MIN_WORDS:
            key = (fact.kind, fact.unit if fact.kind is FactKind.COUNT else "", words)
            # None marks words that several sentences have
            statements[key] = None if key in statements else statement
    return {key: statement for key, statement in statements.items() if statement is not None}
