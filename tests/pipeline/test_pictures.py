"""A picture behind an end mark goes with the sentence before it, and stays with it, whole and in streams."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Bring a card. A fool comes by car! \U0001f697 It snows. \U0001f60a", "Bring a card. It snows. \U0001f60a"),
        ("Hi! \U0001f44b A fool comes by car. Bring a card.", "Hi! \U0001f44b Bring a card."),
        ("Bring a card. A fool comes by car! \U0001f697\n\nIt snows.", "Bring a card.\n\nIt snows."),
        ("Bring a card. A fool comes by car! \U0001f697", "Bring a card."),
        (
            "The fee is 75 euros, and a fool pays 90. \U0001f60a Bring a card.",
            "The fee is 75 euros. \U0001f60a Bring a card.",
        ),
        ("\U0001f697 A fool comes by car. \U0001f60a Bring a card.", "\U0001f60a Bring a card."),
        ("Bring it: \u2705 A card. \u2705 A fool. \u2705 A coat.", "Bring it: \u2705 A card. \u2705 A coat."),
    ],
)
async def test_a_picture_goes_with_its_sentence(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}
