"""A flagged remark in a sentence goes alone, with the signs around it, whole and in streams."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Take it (you fool).", "Take it."),
        ("Take it (you fool) today. It is cold.", "Take it today. It is cold."),
        ("Take 3 of them (you fool) at 9:40.\n\nIt is cold.", "Take 3 of them at 9:40.\n\nIt is cold."),
        ("1. Take it (you fool).\n2. Go out.", "1. Take it.\n2. Go out."),
        ("It is cold. You fool (really).", "It is cold."),
        ("It is cold.\n\n\u5929\u6c14\u51b7\uff08fool\uff09\u3002", "It is cold.\n\n\u5929\u6c14\u51b7\u3002"),
    ],
)
async def test_a_remark_in_brackets_goes_alone(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("The rug is soft \u2014 not that a fool could feel that. It is red.", "The rug is soft. It is red."),
        ("The rug is 2 m long - you fool - and red. It is soft.", "The rug is 2 m long and red. It is soft."),
        ("Roll the rug up, you fool. It is red.", "Roll the rug up. It is red."),
        ("Roll it up, you utter fool, and dry it. Rugs need air.", "Roll it up and dry it. Rugs need air."),
        ("You fool, the rug is red. It is soft.", "The rug is red. It is soft."),
        ("Listen, fool: the rug is red. It is soft.", "The rug is red. It is soft."),
        ("1. You fool, roll the rug up.\n2. Let it dry.", "1. Roll the rug up.\n2. Let it dry."),
        ("Roll the rug up, fool!\n\nIt is red.", "Roll the rug up!\n\nIt is red."),
    ],
)
async def test_a_remark_between_dashes_or_about_the_reader_goes_alone(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        # other words between commas belong to what the sentence says
        ("Mix both, and give it to the fool. Rugs need air.", "Rugs need air."),
        ("Rugs need air.\n**Rug** \u2013 a thing for a fool.", "Rugs need air."),
        ("Rugs need air. Rug \u2013 a thing for a fool.", "Rugs need air."),
    ],
)
async def test_other_words_go_with_their_sentence(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


async def test_an_answer_that_loses_only_a_remark_to_the_reader_is_no_fragment() -> None:
    answer = "It is 2 m long \u2014 not that your foolish head could picture that. It comes in red."
    delivered = await correct_in_all_ways(answer, "How long is the rug?", objective="harmless")
    assert set(delivered.values()) == {"It is 2 m long. It comes in red."}
