"""Finds the edits of an aligner that changes flagged segments alone, by the unflagged text between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from aligner_proxy.gate.edits import Edit
from aligner_proxy.text.structure import Segment


def edits_in_place(original: str, pieces: Sequence[Segment], flagged: Sequence[bool], edited: str) -> list[Edit] | None:
    """One edit for each changed run of flagged segments; None if an unflagged segment changed.

    White space at the very end belongs to the last segment and is not an edit.
    """
    # the white space at the very end of the original stays, whatever the correction has there
    edited = edited.rstrip() + pieces[-1].gap if pieces else edited
    unflagged_runs = list(_unflagged_runs(pieces, flagged))
    # first look for each run where it stood, behind flagged text that may not have changed
    places = _find_runs(original, pieces, unflagged_runs, edited, expects_unchanged=True)
    if places is None:
        # that took too much of the text; now each run may stand anywhere behind the one before
        places = _find_runs(original, pieces, unflagged_runs, edited, expects_unchanged=False)
    if places is None:
        return None
    edits = []
    # where the last unflagged run ends: in `edited`, in `original`, and as a number of segments
    edited_end = 0
    original_end = 0
    segments_done = 0
    for run, position in zip(unflagged_runs, places, strict=True):
        if run.start > segments_done:
            text = edited[edited_end:position]
            edits.append(Edit(original_end, pieces[run.start].start, text, segments_done, run.start))
        original_end = pieces[run.stop - 1].end
        segments_done = run.stop
        edited_end = position + original_end - pieces[run.start].start
    if segments_done < len(pieces):
        edits.append(Edit(original_end, len(original), edited[edited_end:], segments_done, len(pieces)))
    return [edit for edit in edits if original[edit.start : edit.end] != edit.text]


def _unflagged_runs(pieces: Sequence[Segment], flagged: Sequence[bool]) -> Iterator[range]:
    """Yield the numbers of consecutive unflagged segments, run by run."""
    for is_flagged, run in groupby(range(len(pieces)), key=lambda i: flagged[i]):
        if not is_flagged:
            numbers = list(run)
            yield range(numbers[0], numbers[-1] + 1)


def _find_runs(
    original: str, pieces: Sequence[Segment], unflagged_runs: Sequence[range], edited: str, *, expects_unchanged: bool
) -> list[int] | None:
    """The position in `edited` where each unflagged run begins; None if a run is missing.

    With `expects_unchanged`, text that is identical up to the end of a run counts as unchanged, flagged or not.
    Otherwise a repeated segment would match its first copy, and the segments between would seem removed. But this may
    leave too little text for the runs that follow.
    """
    places = []
    # where the last run that was found ends: in `edited`, and in `original`
    at = 0
    start = 0
    for run in unflagged_runs:
        position = None
        if expects_unchanged and edited.startswith(original[start : pieces[run.stop - 1].end], at):
            position = _fit_run(pieces, run, edited, at + pieces[run.start].start - start)
        if position is None:
            position = _find_run(original, pieces, run, edited, at)
        # nothing may be inserted before an answer that begins with an unflagged segment
        if position is None or (run.start == 0 and position != 0):
            return None
        places.append(position)
        start = pieces[run.stop - 1].end
        at = position + start - pieces[run.start].start
    return places


def _fit_run(pieces: Sequence[Segment], unflagged: range, edited: str, position: int) -> int | None:
    """`position` if the run fits there: it ends at a word boundary, and the last run ends the text; otherwise None."""
    end = position + pieces[unflagged.stop - 1].end - pieces[unflagged.start].start
    is_last = unflagged.stop == len(pieces)
    fits = is_word_boundary(edited, end) and (not is_last or end + len(pieces[-1].gap) == len(edited))
    return position if fits else None


def _find_run(original: str, pieces: Sequence[Segment], unflagged: range, edited: str, at: int) -> int | None:
    """Position of an unflagged run in `edited` from `at` on: at the end for the last run, otherwise the first match."""
    text = original[pieces[unflagged.start].start : pieces[unflagged.stop - 1].end]
    if unflagged.stop == len(pieces):
        position = len(edited) - len(pieces[-1].gap) - len(text)
        fits = position >= at and edited.startswith(text, position) and is_word_boundary(edited, position)
        return position if fits else None
    position = edited.find(text, at)
    while position >= 0 and not (is_word_boundary(edited, position) and is_word_boundary(edited, position + len(text))):
        # a match inside a longer word is no copy of the run
        position = edited.find(text, position + 1)
    return position if position >= 0 else None


def is_word_boundary(text: str, at: int) -> bool:
    """Whether offset `at` is not inside a word."""
    return not (0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum())
