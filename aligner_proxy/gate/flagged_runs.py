"""Finds the edits of an aligner that changes only flagged segments, by the unflagged text between them.

A run is a sequence of consecutive unflagged segments, as a range of their indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from aligner_proxy.gate.edits import Edit
from aligner_proxy.text.structure import Segment


def edits_in_place(original: str, pieces: Sequence[Segment], flagged: Sequence[bool], edited: str) -> list[Edit] | None:
    """Find one edit for each changed sequence of flagged segments; None if an unflagged segment changed.

    `flagged` says of each segment in `pieces` whether it was flagged. White space at the very end belongs to the last
    segment and is not an edit.
    """
    # the white space at the very end of the original stays, whatever the correction has there
    edited = edited.rstrip() + pieces[-1].gap if pieces else edited
    runs = list(_find_unflagged_runs(pieces, flagged))
    # first search each run where it stood, behind flagged text that may not have changed
    positions = _locate_runs(original, pieces, runs, edited, expects_unchanged=True)
    if positions is None:
        # too little text was left for a later run, so now each run may stand anywhere behind the run before
        positions = _locate_runs(original, pieces, runs, edited, expects_unchanged=False)
    if positions is None:
        return None
    edits = []
    # where the last run ends: its offsets in `edited` and `original`, and the index of the segment behind it
    edited_end = 0
    original_end = 0
    next_index = 0
    for run, position in zip(runs, positions, strict=True):
        if run.start > next_index:
            text = edited[edited_end:position]
            edits.append(Edit(original_end, pieces[run.start].start, text, first=next_index, last=run.start))
        original_end = pieces[run.stop - 1].end
        next_index = run.stop
        edited_end = position + original_end - pieces[run.start].start
    if next_index < len(pieces):
        edits.append(Edit(original_end, len(original), edited[edited_end:], first=next_index, last=len(pieces)))
    return [edit for edit in edits if original[edit.start : edit.end] != edit.text]


def _find_unflagged_runs(pieces: Sequence[Segment], flagged: Sequence[bool]) -> Iterator[range]:
    """Yield the indexes of consecutive unflagged segments, run by run."""
    for is_flagged, group in groupby(range(len(pieces)), key=flagged.__getitem__):
        if not is_flagged:
            indexes = list(group)
            yield range(indexes[0], indexes[-1] + 1)


def _locate_runs(
    original: str, pieces: Sequence[Segment], runs: Sequence[range], edited: str, *, expects_unchanged: bool
) -> list[int] | None:
    """The position in `edited` where each unflagged run begins; None if a run is missing.

    With `expects_unchanged`, text that is identical up to the end of a run counts as unchanged, flagged or not.
    Otherwise a repeated segment would match its first copy, and the segments between would seem removed. But this may
    leave too little text for the runs that follow.
    """
    positions = []
    # where the last run that was found ends: in `edited`, and in `original`
    edited_end = 0
    original_end = 0
    for run in runs:
        run_start = pieces[run.start].start
        run_end = pieces[run.stop - 1].end
        position = None
        if expects_unchanged and edited.startswith(original[original_end:run_end], edited_end):
            position_if_unchanged = edited_end + run_start - original_end
            if _fits_at(pieces, run, edited, position_if_unchanged):
                position = position_if_unchanged
        if position is None:
            position = _search_run(original, pieces, run, edited, edited_end)
        # nothing may be inserted before an answer that begins with an unflagged segment
        if position is None or (run.start == 0 and position != 0):
            return None
        positions.append(position)
        original_end = run_end
        edited_end = position + run_end - run_start
    return positions


def _fits_at(pieces: Sequence[Segment], run: range, edited: str, position: int) -> bool:
    """Whether a run may begin at `position` of `edited`: it ends at a word boundary, and the last run ends the text."""
    end = position + pieces[run.stop - 1].end - pieces[run.start].start
    is_last = run.stop == len(pieces)
    return is_word_boundary(edited, end) and (not is_last or end + len(pieces[-1].gap) == len(edited))


def _search_run(original: str, pieces: Sequence[Segment], run: range, edited: str, start: int) -> int | None:
    """The position of a run in `edited` from `start` on: at the end for the last run, otherwise the first match.

    None if the run is not there.
    """
    text = original[pieces[run.start].start : pieces[run.stop - 1].end]
    if run.stop == len(pieces):
        position = len(edited) - len(pieces[-1].gap) - len(text)
        fits = position >= start and edited.startswith(text, position) and is_word_boundary(edited, position)
        return position if fits else None
    position = edited.find(text, start)
    while position >= 0 and not (is_word_boundary(edited, position) and is_word_boundary(edited, position + len(text))):
        # a match inside a longer word is no copy of the run
        position = edited.find(text, position + 1)
    return position if position >= 0 else None


def is_word_boundary(text: str, offset: int) -> bool:
    """Whether `offset` is not inside a word of `text`."""
    return not (0 < offset < len(text) and text[offset - 1].isalnum() and text[offset].isalnum())
