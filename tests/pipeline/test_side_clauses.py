"""A flagged clause goes alone where its sentence stands without it, whole and in streams, with its facts."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("The fee is 75 euros, and a fool pays 90. Bring a card.", "The fee is 75 euros. Bring a card."),
        ("The honey, which any fool likes, costs 9 euros. It is dark.", "The honey costs 9 euros. It is dark."),
        ("Only a fool asks, but the fee is 75 euros. Bring a card.", "The fee is 75 euros. Bring a card."),
        ("1. Enter both addresses, and wait for a fool.\n2. Pay.", "1. Enter both addresses.\n2. Pay."),
        ("- We open at nine, unlike Fool & Co.\n- We close at six.", "- We open at nine.\n- We close at six."),
        ("Bring a card. It snows here, so only fools come by car!\n\nBye.", "Bring a card. It snows here!\n\nBye."),
        ("> The fee is 75 euros; a fool pays 90.\n\nBring a card.", "> The fee is 75 euros.\n\nBring a card."),
    ],
)
async def test_a_clause_goes_alone(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("If you are a fool, pay 90 euros. Bring a card.", "Bring a card."),
        ("Bring a card. The old house, with its garden for fools, was sold in 1990.", "Bring a card."),
        ("Bring a card. A fool paid 90 euros, and another fool paid 75.", "Bring a card."),
    ],
)
async def test_a_sentence_that_does_not_stand_without_the_clause_goes(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}
