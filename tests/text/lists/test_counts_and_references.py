"""Counts of lists, and references by a word and a letter, after items were removed."""

from __future__ import annotations

import pytest

from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.structure import join, split


def _without_fools(text: str) -> str:
    """The text without the segments that name fools, renumbered."""
    pieces = split(text)
    removed = {number for number, piece in enumerate(pieces) if "fool" in piece.text}
    rest = join([("" if number in removed else piece.text, piece.gap) for number, piece in enumerate(pieces)])
    return renumber_text(pieces, removed, rest)[0]


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("These 4 tips cost nothing.", "These 3 tips cost nothing."),
        ("Of these four, tea is the cheapest.", "Of these three, tea is the cheapest."),
        ("All four are cheap. Those four tips help.", "All three are cheap. Those three tips help."),
        ("Alle vier Tipps sind gut.", "Alle drei Tipps sind gut."),
        ("These 5 tips are not the list.", "These 5 tips are not the list."),
        ("All four wheels turn.", "All four wheels turn."),
        ("Four tips a day are enough.", "Four tips a day are enough."),
    ],
)
def test_counts_that_refer_back_to_a_list(behind: str, expected: str) -> None:
    items = "- Drink tea.\n- Be no fool.\n- Sleep.\n- Walk.\n\n"
    assert _without_fools(items + behind) == items.replace("- Be no fool.\n", "") + expected


def test_a_count_stays_without_a_list_that_lost_an_item() -> None:
    text = "- Drink tea.\n- Sleep.\n\nThese two tips help. You fool."
    assert _without_fools(text) == "- Drink tea.\n- Sleep.\n\nThese two tips help."


def test_of_two_things_a_count_says_both() -> None:
    text = "- Drink tea.\n- Be no fool.\n- Sleep.\n\n"
    left = "- Drink tea.\n- Sleep.\n\n"
    assert _without_fools(text + "All three are cheap.") == left + "Both are cheap."
    assert _without_fools(text + "Alle drei Tipps sind gut.") == left + "Beide Tipps sind gut."


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("I prefer option C.", "I prefer option B."),
        ("Options A and C are cheap.", "Options A and B are cheap."),
        ("Plan C is another thing, and so is point C.", "Plan C is another thing, and so is point C."),
        ("That is all the options I have.", "That is all the options I have."),
    ],
)
def test_references_to_letters_behind_a_word(behind: str, expected: str) -> None:
    text = "Option A: tea.\nOption B: a fool.\nOption C: milk.\n\n"
    assert _without_fools(text + behind) == "Option A: tea.\nOption B: milk.\n\n" + expected
