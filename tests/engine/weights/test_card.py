"""Which languages a card says that an aligner knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.engine.weights import card, sources


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlanguage: en\n---\n# A card\n", ("en",)),
        ("---\nlicense: mit\nlanguage:\n- en\n- pt-BR\n- en\n---\n", ("en", "pt")),
        ("---\nlanguage: [en, multilingual]\n---\n", ()),
        ("---\nlicense: mit\n---\n", ()),
        ("---\nlanguage: {a: b}\n---\n", ()),
        ("---\n: : :\n---\n", ()),
        ("---\nlanguage: en\n", ()),
        ("# A card\n\nlanguage: en\n", ()),
        ("", ()),
    ],
)
def test_the_languages_of_a_card(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / card.CARD).write_text(text)
    assert card.read_languages(tmp_path) == expected
    assert sources.languages(tmp_path) == expected


def test_a_folder_without_a_card_or_with_a_broken_one(tmp_path: Path) -> None:
    assert card.read_languages(tmp_path) == ()
    (tmp_path / card.CARD).write_bytes(b"---\nlanguage: \xff\n---\n")
    assert card.read_languages(tmp_path) == ()
    assert sources.languages(tmp_path / "missing") == ()
    assert sources.languages("nobody/nothing") == ()


def test_the_embedded_aligner_knows_english() -> None:
    assert sources.languages("embedded") == ("en",)
    assert sources.resolve("embedded").languages == ("en",)
