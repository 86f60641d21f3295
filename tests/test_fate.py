"""What became of the segments that an edit covers."""

from __future__ import annotations

import pytest

from aligner_proxy.edits import COMPARABLE, Edit
from aligner_proxy.fate import Fate, follow
from aligner_proxy.segments import split

PIECES = split("Two is rude. Three is rude too. Four stays.")
COVERED = Edit(0, 31, "", 0, 2)


def fates(text: str, free: list[bool] | None = None) -> list[Fate]:
    edit = Edit(0, 31, text, 0, 2)
    return [part.fate for part in follow(edit, PIECES, free or [True] * 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [Fate.REMOVED, Fate.REMOVED]),
        (" \n", [Fate.REMOVED, Fate.REMOVED]),
        ("Two is kind. ", [Fate.REWRITTEN, Fate.REMOVED]),
        ("Three is kind. ", [Fate.REMOVED, Fate.REWRITTEN]),
        ("Quite other words. ", [Fate.REWRITTEN, Fate.REMOVED]),
        ("Two. Three. And more. ", [Fate.REWRITTEN, Fate.REWRITTEN]),
    ],
)
def test_a_new_piece_continues_the_old_one_it_is_most_like(text: str, expected: list[Fate]) -> None:
    assert fates(text) == expected


def test_what_is_not_free_has_to_stay() -> None:
    assert fates("", [True, False, False]) == [Fate.REMOVED, Fate.STAYS]


def test_parts_say_which_segment_they_are() -> None:
    assert [(part.index, part.text) for part in follow(COVERED, PIECES, [True] * 3)] == [
        (0, "Two is rude."),
        (1, "Three is rude too."),
    ]


def test_beyond_comparing_everything_has_to_stay() -> None:
    pieces = split("Ay.\n" * (COMPARABLE + 1))
    edit = Edit(0, pieces[-1].end, "", 0, len(pieces))
    assert {part.fate for part in follow(edit, pieces, [True] * len(pieces))} == {Fate.STAYS}
