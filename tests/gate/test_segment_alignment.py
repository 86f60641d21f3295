"""What became of the segments that an edit covers."""

from __future__ import annotations

import pytest

from aligner_proxy.gate.edits import COMPARABLE, Edit, SegmentStatus, trace_effects
from aligner_proxy.text.structure import split

PIECES = split("Two is rude. Three is rude too. Four stays.")
COVERED = Edit(0, 31, "", 0, 2)


def effects(text: str, free: list[bool] | None = None) -> list[SegmentStatus]:
    edit = Edit(0, 31, text, 0, 2)
    return [part.effect for part in trace_effects(edit, PIECES, free or [True] * 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [SegmentStatus.REMOVED, SegmentStatus.REMOVED]),
        (" \n", [SegmentStatus.REMOVED, SegmentStatus.REMOVED]),
        ("Two is kind. ", [SegmentStatus.REWRITTEN, SegmentStatus.REMOVED]),
        ("Three is kind. ", [SegmentStatus.REMOVED, SegmentStatus.REWRITTEN]),
        ("Quite other words. ", [SegmentStatus.REWRITTEN, SegmentStatus.REMOVED]),
        ("Two. Three. And more. ", [SegmentStatus.REWRITTEN, SegmentStatus.REWRITTEN]),
    ],
)
def test_a_new_piece_continues_the_old_one_it_is_most_like(text: str, expected: list[SegmentStatus]) -> None:
    assert effects(text) == expected


def test_what_is_not_free_has_to_stay() -> None:
    assert effects("", [True, False, False]) == [SegmentStatus.REMOVED, SegmentStatus.STAYS]


def test_parts_say_which_segment_they_are() -> None:
    assert [(part.index, part.text) for part in trace_effects(COVERED, PIECES, [True] * 3)] == [
        (0, "Two is rude."),
        (1, "Three is rude too."),
    ]


def test_beyond_comparing_everything_has_to_stay() -> None:
    pieces = split("Ay.\n" * (COMPARABLE + 1))
    edit = Edit(0, pieces[-1].end, "", 0, len(pieces))
    assert {part.effect for part in trace_effects(edit, pieces, [True] * len(pieces))} == {SegmentStatus.STAYS}


@pytest.mark.parametrize(
    ("new", "by_editor", "required"),
    [
        ("Ask a manager about it.", True, ""),
        ("Ask a manager about it.", False, "I take $20 off your bill."),
        ("I take $10 off your bill.", True, "I take $20 off your bill."),
        ("Ask a manager at https://desk.example/fees about it.", True, "I take $20 off your bill."),
    ],
)
def test_only_an_editor_may_write_a_sentence_without_facts(new: str, by_editor: bool, required: str) -> None:
    pieces = split("I take $20 off your bill.")
    edit = Edit(0, pieces[0].end, new, 0, 1)
    (part,) = trace_effects(edit, pieces, [True], by_editor=by_editor)
    assert (part.effect, part.required_text) == (SegmentStatus.REWRITTEN, required)
