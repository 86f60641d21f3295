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
    items = "- Drink a cup of tea every evening.\n- Be no fool.\n- Sleep for eight hours every night."
    delivered = await correct_in_all_ways(f"{items}\n\n{behind}\n\nCall us if you need more help.")
    left = items.replace("- Be no fool.\n", "")
    assert delivered == dict.fromkeys(delivered, f"{left}\n\n{expected}\n\nCall us if you need more help.")
