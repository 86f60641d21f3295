"""Which objective asks for which defect."""

from __future__ import annotations

import pytest

from models.data.labels import INNOCENT, MARKED, MIXED, relation, relation_in_text
from models.data.pairs import CHANGES, STAYS, UNKNOWN
from models.defects import ALL_KINDS


@pytest.mark.parametrize(
    ("kind", "theme", "expected"),
    [
        ("", "harmless", STAYS),
        ("insult", "harmless", CHANGES),
        ("insult", "concise", STAYS),
        ("insult", "formal", UNKNOWN),
        ("sign-off", "harmless", STAYS),
        ("sign-off", "direct", CHANGES),
        (INNOCENT, "relevance", CHANGES),
        (INNOCENT, "harmless", STAYS),
        (INNOCENT, "concise", UNKNOWN),
        (MIXED, "harmless", UNKNOWN),
        ("marked-irrelevant", "relevance", CHANGES),
        ("marked-irrelevant", "harmless", STAYS),
        ("marked-irrelevant", "humour", UNKNOWN),
        ("insult", "", STAYS),
        ("insult~", "insult", STAYS),
        ("insult~", "harmless", STAYS),
        ("insult~", "formal", UNKNOWN),
        ("insult~", "trains", STAYS),
        ("insult~", "mockery", UNKNOWN),
        ("insult", "concise & harmless", CHANGES),
        ("insult", "concise & formal", UNKNOWN),
        ("insult", "concise & readable", STAYS),
    ],
)
def test_relations(kind: str, theme: str, expected: int) -> None:
    assert relation(kind, theme) == expected


@pytest.mark.parametrize(
    ("kind", "theme", "doubts", "expected"),
    [
        ("", "insult", set(), STAYS),
        ("", "insult", {"insult"}, UNKNOWN),
        ("", "harmless", set(), UNKNOWN),  # of another question: who knows what it was an answer to
        (INNOCENT, "trains", set(), STAYS),
        (INNOCENT, "trains", {"trains"}, UNKNOWN),
        (INNOCENT, "relevance", set(), CHANGES),
        ("", "trains & insult", {"insult"}, UNKNOWN),
        ("insult", "trains", {"trains"}, UNKNOWN),  # only a fool would wonder about trains
        ("insult", "insult", {"insult"}, CHANGES),
        ("insult~", "insult", {"insult"}, STAYS),
    ],
)
def test_what_a_text_speaks_of_decides_where_nothing_was_put_in(
    kind: str, theme: str, doubts: set[str], expected: int
) -> None:
    assert relation_in_text(kind, theme, frozenset(doubts)) == expected


def test_every_kind_is_asked_for_by_its_own_name() -> None:
    assert all(relation(kind.name, kind.name) == CHANGES for kind in ALL_KINDS)


def test_no_mark_is_asked_for_and_spared_at_once() -> None:
    assert not any(asks & spares for asks, spares in MARKED.values())
