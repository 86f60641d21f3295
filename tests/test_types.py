"""The frozen values that travel between rooms: what is added up, and how."""

from __future__ import annotations

import pytest

from aligner_proxy.types import (
    Correction,
    DecodeCounts,
    GrowingScore,
    SegmentEvidence,
    SegmentScore,
    all_cached,
    score_whole_answer,
)


def test_a_correction_costs_what_its_parts_cost() -> None:
    parts = [
        Correction("a", counts=DecodeCounts(drafted=3, forwards=1), prompt_tokens=10, ms=2.0),
        Correction("b", counts=DecodeCounts(drafted=4, accepted=2, forwards=2), prompt_tokens=5, ms=0.5),
    ]
    joined = Correction("a b", aligner="hash").with_cost_of(iter(parts))
    assert joined == Correction("a b", (), DecodeCounts(7, 2, forwards=3), prompt_tokens=15, ms=2.5, aligner="hash")


def test_what_has_no_parts_costs_nothing() -> None:
    assert Correction("a", ms=1.0).with_cost_of([]) == Correction("a")


@pytest.mark.parametrize(
    ("hits", "expected"),
    [([], None), ([None], None), ([True, None], True), ([True, False], False), ([None, False], False)],
)
def test_all_cached_needs_a_hit_wherever_the_cache_was_asked(hits: list[bool | None], expected: bool | None) -> None:
    assert all_cached(hits) is expected


SAID = [
    SegmentScore(f"Sentence {nats}.", -2.0, False, 0, SegmentEvidence(nats, 1, -3.0)) for nats in (1.0, -2.0, 0.5, 2.5)
]
END = SegmentScore("", -3.0, False)
SILENT = SegmentScore("It says nothing.", -2.0, False)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([*SAID, END], (0.5, 1, -3.0)),
        ([END], None),
        ([], None),
        ([*SAID, SILENT], None),
        ([SILENT, *SAID], None),
    ],
)
def test_a_growing_answer_has_the_score_of_the_whole(
    segments: list[SegmentScore], expected: tuple[float, int, float] | None
) -> None:
    assert score_whole_answer(segments) == expected
    growing = GrowingScore()
    for count in range(len(segments) + 1):
        assert growing.read(segments[:count]) == score_whole_answer(segments[:count])


def test_what_was_read_of_a_growing_answer_is_not_read_again() -> None:
    growing = GrowingScore()
    assert growing.read(SAID[:2]) == (-0.5, 1, -3.0)
    assert growing.read([SILENT, SILENT, *SAID[2:]]) == (0.5, 1, -3.0)


@pytest.mark.parametrize(("question", "doubt"), [(-3.0, 0.5), (0.0, 0.5), (2.0, 2.5)])
def test_a_question_adds_to_the_doubt_of_its_answer_and_lowers_none(question: float, doubt: float) -> None:
    segments = [SegmentScore("A sentence.", -2.0, False, 0, SegmentEvidence(0.5, 1, question))]
    whole = score_whole_answer(segments)
    assert whole is not None
    assert (whole.score, whole.doubt) == (0.5, doubt)
