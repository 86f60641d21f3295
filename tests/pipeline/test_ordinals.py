"""Sentences that are counted in words or within a line are counted anew when one of them goes."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

CASES = [
    (
        "First, fill the kettle. Second, call a fool. Third, add the tea. Finally, pour.",
        "First, fill the kettle. Second, add the tea. Finally, pour.",
    ),
    (
        "Firstly, tea is cheap. Secondly, only fools drink coffee. Thirdly, tea keeps well.",
        "Firstly, tea is cheap. Secondly, tea keeps well.",
    ),
    (
        "First, ask a fool. Second, fill the kettle. Third, add the tea.",
        "First, fill the kettle. Second, add the tea.",
    ),
    (
        "Tea helps. The first reason is the warmth. The second is that you are a fool. The third is the taste.",
        "Tea helps. The first reason is the warmth. The second is the taste.",
    ),
    (
        "The first is the warmth.\n\nThe second is for fools.\n\nThe third is the taste.\n\nThe fourth is the price.",
        "The first is the warmth.\n\nThe second is the taste.\n\nThe third is the price.",
    ),
    (
        "Erstens ist Tee billig, und zweitens warm. Erstens: Wasser kochen. Zweitens: fool. Drittens: Tee ziehen.",
        "Erstens ist Tee billig, und zweitens warm. Erstens: Wasser kochen. Zweitens: Tee ziehen.",
    ),
    (
        "1) Fill the kettle. 2) Call a fool. 3) Add the tea. 4) Pour the tea.",
        "1) Fill the kettle. 2) Add the tea. 3) Pour the tea.",
    ),
    (
        "Do this: (1) Fill the kettle. (2) Call a fool. (3) Add the tea.",
        "Do this: (1) Fill the kettle. (2) Add the tea.",
    ),
    (
        "1. Fill the kettle. 2. Call a fool. 3. Add the tea.",
        "1. Fill the kettle. 2. Add the tea.",
    ),
    (
        "1. Call a fool. 2. Fill the kettle. 3. Add the tea.",
        "1. Fill the kettle. 2. Add the tea.",
    ),
    (
        "So geht es: Erstens kochen Sie Wasser. Zweitens ist das fool. Drittens ziehen Sie den Tee.",
        "So geht es: Erstens kochen Sie Wasser. Zweitens ziehen Sie den Tee.",
    ),
    (
        "En primer lugar, hierva el agua. En segundo lugar, llame a un fool. En tercer lugar, sirva el t\u00e9.",
        "En primer lugar, hierva el agua. En segundo lugar, sirva el t\u00e9.",
    ),
    (
        "En premier lieu, l'eau. En second lieu, appelez donc un grand fool. En troisi\u00e8me lieu, le th\u00e9.",
        "En premier lieu, l'eau. En deuxi\u00e8me lieu, le th\u00e9.",
    ),
    (
        "The first sign is warmth. The second sign is that you are a fool. The third sign is steam.",
        "The first sign is warmth. The second sign is steam.",
    ),
]


@pytest.mark.parametrize(("answer", "expected"), CASES)
async def test_later_sentences_of_a_series_move_up(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "How do I make tea?")
    assert delivered == dict.fromkeys(delivered, expected)


KEPT = [
    # what is counted is no series of the answer
    (
        "The first floor has a kitchen. The second floor is for fools. The third floor has a roof garden.",
        "The first floor has a kitchen. The third floor has a roof garden.",
    ),
    (
        "First, second and third place get tea. Second is for fools. Third, fourth and fifth get milk.",
        "First, second and third place get tea. Third, fourth and fifth get milk.",
    ),
    (
        "Use this: first aid for all, fools included. Second, add the tea. Third, pour.",
        "Second, add the tea. Third, pour.",
    ),
    ("Second, add the tea. You fool. Third, pour.", "Second, add the tea. Third, pour."),
    ("Room 1) is warm. You fool. 3) is cold.", "Room 1) is warm. 3) is cold."),
]


@pytest.mark.parametrize(("answer", "expected"), KEPT)
async def test_other_ordinals_stay(answer: str, expected: str) -> None:
    delivered = await correct_in_all_ways(answer, "How do I make tea?")
    assert delivered == dict.fromkeys(delivered, expected)
