"""Replacements: what goes out in place of pieces of any sizes is the new text, once and in order."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.pipeline.replacements import ReplacementMap


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
