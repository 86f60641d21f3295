"""Words that join a sentence to removed ones before it."""

from __future__ import annotations

import pytest

from aligner_proxy.text.openings import drop_connective, drop_orphaned_connective
from aligner_proxy.text.structure import split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("However, it rains.", "It rains."),
        ("You can also wait.", "You can wait."),
        ("It also helps to wait.", "It helps to wait."),
        ("Sie k\u00f6nnen uns auch schreiben.", "Sie k\u00f6nnen uns schreiben."),
        ("Vous pouvez \u00e9galement venir.", "Vous pouvez venir."),
        ("Also wait.", "Also wait."),
        ("It is not only big, but also old.", "It is not only big, but also old."),
        ("Das ist auch sonntags offen.", "Das ist auch sonntags offen."),
    ],
)
def test_a_word_that_joins_goes(text: str, expected: str) -> None:
    assert drop_connective(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You fool. You can also wait.", "You can wait."),
        ("## Tips\n\nYou fool. It also helps.\n\n## End\n\nBye.", "## Tips\n\nIt helps.\n\n## End\n\nBye."),
        ("It rains.\n\n## Tips\n\nYou fool. However, wait.", "It rains.\n\n## Tips\n\nWait."),
        # a sentence that stays may be what the word refers to
        ("Wait. You fool. You can also go.", "Wait. You can also go."),
        ("## Tips\n\nWait. You fool. You can also go.", "## Tips\n\nWait. You can also go."),
        ("You fool.\n\n## Tips\n\nYou can also wait.", "## Tips\n\nYou can also wait."),
    ],
)
def test_it_goes_at_the_beginning_of_an_answer_or_section(text: str, expected: str) -> None:
    pieces = split(text)
    removed = {index for index, piece in enumerate(pieces) if "fool" in piece.text}
    rest = "".join(piece.text + piece.gap for index, piece in enumerate(pieces) if index not in removed)
    assert drop_orphaned_connective(pieces, removed, rest) == expected
