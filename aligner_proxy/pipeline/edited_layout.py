"""Layout of an edited answer: a list of cells, each an unchanged segment or a flagged run with its replacement.

A second reading may flag further segments. They are removed, and so is a replacement that it flags. This module works
on text only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.gate import edits
from aligner_proxy.gate.flagged_runs import edits_in_place
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, SegmentScore


@dataclass(slots=True)
class _Cell:
    """An unflagged segment, or a run of flagged segments (`first` up to `stop`) with the text that replaces it."""

    first: int
    stop: int
    text: str
    """What the edited answer has here; empty if the segments are removed."""
    gap: str
    """The white space after it, as in the original."""
    start: int = 0
    end: int = 0
    """Its range in the edited answer after the latest `rebuild`; empty (`end == start`) if it has no text there."""


@dataclass(slots=True)
class EditedLayout:
    """A correction taken apart into cells."""

    pieces: Sequence[Segment]
    """The segments of the original answer; the last may be empty, for the position after the text."""
    verdicts: list[SegmentScore]
    """The verdict on each of them, including those of second readings."""
    _cells: list[_Cell]
    _edited: str
    """The edited answer as of the latest `rebuild`."""
    _correction: Correction
    """The correction of the first reading."""
    changed: bool = field(default=False)
    """Whether something was flagged that the correction had left unchanged."""

    @classmethod
    def from_correction(cls, answer: str, correction: Correction) -> EditedLayout | None:
        """Take a correction apart; None if it has no verdicts, or changes text that was not flagged."""
        pieces = structure.match_segments(structure.split(answer), [verdict.text for verdict in correction.segments])
        flags = edits.detector_flags(pieces, correction)
        proposed = None if flags is None else edits_in_place(answer, pieces, flags, correction.text)
        if flags is None or proposed is None:
            return None
        replacement = {edit.first: edit.text for edit in proposed}
        cells: list[_Cell] = []
        first = 0
        while first < len(pieces):
            stop = first + 1
            # consecutive flagged segments are replaced by one text
            while flags[first] and stop < len(pieces) and flags[stop]:
                stop += 1
            cells.append(_build_cell(pieces, first, stop, replacement.get(first)))
            if cells[1:] and cells[-1].text and not pieces[first].text:
                cells[-2].gap = ""  # text added after the last segment brings its own leading white space
            first = stop
        layout = cls(pieces, list(correction.segments), cells, "", correction)
        layout.rebuild()
        return layout

    def flag(self, number: int, verdict: SegmentScore) -> bool:
        """Flag one segment with this verdict and remove its text; return whether it was not flagged before."""
        old_verdict = self.verdicts[number]
        # the position after the last segment has no text that could be removed
        if old_verdict.flagged or not old_verdict.text:
            return False
        self.verdicts[number] = replace(verdict, text=old_verdict.text, flagged=True)
        self.changed = True
        self._cell_of(number).text = ""
        return True

    def flag_between(self, start: int, end: int, verdict: SegmentScore) -> bool:
        """Flag the segments in this range of the original, unless one already is; return whether any was new."""
        covered = [
            number for number, piece in enumerate(self.pieces) if piece.text and piece.start < end and start < piece.end
        ]
        if any(self.verdicts[number].flagged for number in covered):
            return False
        newly_flagged = [number for number in covered if self.flag(number, verdict)]
        return bool(newly_flagged)

    def flag_edited(self, start: int, end: int, verdict: SegmentScore) -> bool:
        """Flag all segments and replacements in this range of the edited answer; return whether there are any."""
        was_flagged = False
        for cell in self._cells:
            if not (cell.start < end and start < cell.end):
                continue
            if self.verdicts[cell.first].flagged:
                cell.text = ""
                self.changed = True
            else:
                self.flag(cell.first, verdict)
            was_flagged = True
        return was_flagged

    @property
    def edited(self) -> str:
        """The edited answer as of the latest `rebuild`."""
        return self._edited

    def correction(self) -> Correction:
        """The current correction; the original object if nothing more was flagged. Rebuilds the edited answer."""
        if not self.changed:
            return self._correction
        self.rebuild()
        return replace(self._correction, text=self._edited, segments=tuple(self.verdicts))

    def rebuild(self) -> None:
        """Join the cells to the edited answer, and note where each is in it; call this before `edited`."""
        self._edited = structure.join([(cell.text, cell.gap) for cell in self._cells])
        position = 0
        for cell in self._cells:
            cell.start = self._edited.find(cell.text, position) if cell.text else position
            cell.end = cell.start + len(cell.text)
            position = cell.end

    def _cell_of(self, number: int) -> _Cell:
        """The cell that contains the segment of this number."""
        return next(cell for cell in self._cells if cell.first <= number < cell.stop)


def _build_cell(pieces: Sequence[Segment], first: int, stop: int, replacement: str | None) -> _Cell:
    """The cell of segments `first` up to `stop`: an unflagged one, or a flagged run with its replacement."""
    original = structure.join([(piece.text, piece.gap) for piece in pieces[first:stop]])
    gap = pieces[stop - 1].gap
    if replacement is None:
        return _Cell(first, stop, original, gap)
    # what is added at the end of the answer brings the white space before it
    text = replacement.strip() if original else replacement.rstrip()
    return _Cell(first, stop, text, gap)
