"""Replacements: what goes out in place of pieces of any sizes is the new text, once and in order, with its breaks."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.pipeline.replacements import ReplacementMap
from tests.support.pruning import correct_in_all_ways


@given(st.text(), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_spreading_a_text_over_pieces_loses_nothing(text: str, sizes: list[int]) -> None:
    ends = [0, *accumulate(sizes)]
    replacements = ReplacementMap()
    replacements.add(ends[-1], text)
    assert "".join(replacements.render(start, end, "") for start, end in pairwise(ends)) == text


def test_what_is_not_decided_goes_out_as_it_is() -> None:
    replacements = ReplacementMap()
    replacements.add(4, "Go.")
    replacements.add(6, "")
    assert replacements.render(0, 9, "You! a bc") == "Go. bc"
    assert replacements.render(5, 8, "You! a bc") == " b"


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Tea is good. You fool.\n\nYou fool. The kettle is here.", "Tea is good.\n\nThe kettle is here."),
        ("Tea is good. You fool.\nYou fool. The kettle is here.", "Tea is good.\nThe kettle is here."),
        ("Tea is good. You fool.\n\nYou fool.\n\nYou fool. It is here.", "Tea is good.\n\nIt is here."),
        ("Tea is good. You fool.\n\n- You fool.\n- Use the kettle.", "Tea is good.\n\n- Use the kettle."),
        # between whole lines the breaks around them are enough
        ("- Tea is good.\n- You fool.\n\n  You fool.\n- Use it.", "- Tea is good.\n- Use it."),
    ],
)
async def test_a_removed_run_leaves_its_paragraph_break(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}
