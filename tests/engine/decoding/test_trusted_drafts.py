"""Which draft tokens the detector vouches for: ranges over clean segments, white space and the end mark with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.engine.decoding.proposer import find_trusted_ranges
from aligner_proxy.text.structure import split
from tests.support import tiny

TEXT = "One two. Three four.\n\nFive six. Seven."


def pieces(text: str) -> list[tuple[int, int]]:
    return tiny.runner().tokenizer.encode_text(text).offsets


def texts(text: str, flags: list[bool]) -> list[str]:
    offsets = pieces(text)
    found = find_trusted_ranges(split(text), flags, offsets)
    return [text[offsets[clean.start][0] : offsets[min(clean.stop, len(offsets)) - 1][1]] for clean in found]


@pytest.mark.parametrize(
    ("flags", "clean"),
    [
        ([False] * 4, [TEXT]),
        ([True] * 4, []),
        ([False, True, False, False], ["One two.", "Five six. Seven."]),
        ([True, False, False, True], ["Three four.\n\nFive six."]),
        ([False, False, True, False], ["One two. Three four.", "Seven."]),
    ],
)
def test_clean_segments_side_by_side_are_one_range(flags: list[bool], clean: list[str]) -> None:
    assert [text.strip() for text in texts(TEXT, flags)] == clean


def test_the_end_mark_belongs_to_a_last_segment_that_is_clean() -> None:
    offsets = pieces(TEXT)
    assert find_trusted_ranges(split(TEXT), [False] * 4, offsets) == (range(len(offsets) + 1),)
    assert find_trusted_ranges(split(TEXT), [False] * 3 + [True], offsets)[-1].stop < len(offsets)


@given(st.text(st.sampled_from("ab. \n!é"), min_size=1).filter(str.strip), st.randoms())
def test_no_token_of_a_flagged_segment_is_vouched_for(text: str, rng: object) -> None:
    segments = split(text)
    offsets = pieces(text)
    flags = [rng.random() < 0.5 for _ in segments]  # type: ignore[attr-defined]
    found = find_trusted_ranges(segments, flags, offsets)
    assert all(clean.start < clean.stop <= len(offsets) + 1 for clean in found)
    for clean in found:
        for token in range(clean.start, min(clean.stop, len(offsets))):
            last = offsets[token][1] - 1
            holders = [i for i, s in enumerate(segments) if s.start <= last < s.end]
            assert not any(flags[i] for i in holders)
