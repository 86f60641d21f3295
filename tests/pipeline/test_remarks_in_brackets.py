"""A flagged remark in brackets goes alone, with the space before it, whole and in streams."""

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
