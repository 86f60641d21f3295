"""A star that refers to a removed note goes with it."""

from __future__ import annotations

import pytest

from tests.gate.lists import judged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "- Single: 80 \u20ac*\n- Double: 120 \u20ac\n\n*You fool, book now.\n\nBring a towel.",
            "- Single: 80 \u20ac\n- Double: 120 \u20ac\n\nBring a towel.",
        ),
        (
            "| Room | Price |\n|---|---|\n| **Single** | 80 \u20ac* |\n\n\\* Only a fool pays more.",
            "| Room | Price |\n|---|---|\n| **Single** | 80 \u20ac |",
        ),
        ("It costs 80 \u20ac*. Bring a towel.\n\n*You fool.", "It costs 80 \u20ac. Bring a towel."),
        # emphasis, a product, a note that stays, the mark of an item
        ("It is *warm* here.\n\n*You fool.", "It is *warm* here."),
        ("Take 3 * 4 of *them*.\n\n*You fool.", "Take 3 * 4 of *them*."),
        ("It costs 80 \u20ac*. You fool.\n\n*Without breakfast.", "It costs 80 \u20ac*.\n\n*Without breakfast."),
        ("It costs 80 \u20ac*.\n\n* Bring a towel.\n* You fool.", "It costs 80 \u20ac*.\n\n* Bring a towel."),
    ],
)
def test_a_star_goes_with_its_note(text: str, expected: str) -> None:
    assert judged(text).text == expected
