"""The "and" before the last item of a list that is one sentence, when items at its end are removed."""

from __future__ import annotations

import pytest

from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.structure import join, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a) tea;\n(b) milk; and\n(c) a fool.", "(a) tea; and\n(b) milk."),
        ("(a) tea;\n(b) a fool; and\n(c) milk.", "(a) tea; and\n(b) milk."),
        ("(a) a fool;\n(b) tea; and\n(c) milk.", "(a) tea; and\n(b) milk."),
        ("(a) tea;\n(b) a fool; and\n(c) a fool.", "(a) tea."),
        ("- tea,\n- milk, or\n- a fool", "- tea, or\n- milk"),
        ("- Tee,\n- Milch und\n- fool.", "- Tee und\n- Milch."),
        ("1. t\u00e9;\n2. leche; y\n3. fool.\n\nMore.", "1. t\u00e9; y\n2. leche.\n\nMore."),
        # no item of a sentence
        ("- tea.\n- milk.\n- a fool.", "- tea.\n- milk."),
        ("- tea and\n- rum and\n- a fool and", "- tea and\n- rum and"),
        ("- tea\n- rum and\n  - hot\n- a fool", "- tea\n- rum and\n  - hot"),
        ("tea;\nmilk; and\na fool.", "tea;\nmilk; and"),
    ],
)
def test_the_last_item_that_remains_ends_the_sentence(text: str, expected: str) -> None:
    pieces = split(text)
    removed = {number for number, piece in enumerate(pieces) if "fool" in piece.text}
    rest = join([("" if number in removed else piece.text, piece.gap) for number, piece in enumerate(pieces)])
    assert renumber_text(pieces, removed, rest)[0] == expected
