"""Counts behind a list of which an item was removed: a stream updates them, too."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("These three tips cost nothing.", "These two tips cost nothing."),
        ("Mit diesen Tipps geht es. Diese drei Tipps helfen.", "Mit diesen Tipps geht es. Diese zwei Tipps helfen."),
        ("Com estas três dicas vai.", "Com estas duas dicas vai."),
        ("Эти три совета помогут.", "Эти два совета помогут."),
        ("These four tips are others.", "These four tips are others."),
    ],
)
async def test_a_count_behind_a_list(behind: str, expected: str) -> None:
    delivered = await correct_in_all_ways(f"- Drink tea.\n- Be no fool.\n- Sleep well.\n\n{behind}\n\nBye.")
    assert delivered == dict.fromkeys(delivered, f"- Drink tea.\n- Sleep well.\n\n{expected}\n\nBye.")
