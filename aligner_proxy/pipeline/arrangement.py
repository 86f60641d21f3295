"""Arrangement of a correction: the segments of an answer, each as it is or with what stands in its place.

Further segments may be flagged in it: they go, and with them what was written where they are found again. Text only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.gate import edits
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, SegmentScore


@dataclass(slots=True)
class _Cell:
    """A segment that stays, or a flagged run of them (`first` to `stop`) with the text in its place."""

    first: int
    stop: int
    text: str
    gap: str
    start: int = 0
    end: int = 0
    """Where it stood in the edited answer when that was arranged last; it ends where it starts if it stood nowhere."""


@dataclass(slots=True)
class Arrangement:
    """A correction taken apart."""

    pieces: Sequence[Segment]
    verdicts: list[SegmentScore]
    _cells: list[_Cell]
    _edited: str
    _correction: Correction
    changed: bool = field(default=False)
    """Whether something was flagged that the correction had left."""

    @classmethod
    def of(cls, answer: str, correction: Correction) -> Arrangement | None:
        """The arrangement of a correction; None where there are no verdicts, or it changes what was not flagged."""
        pieces = structure.match_segments(structure.split(answer), [verdict.text for verdict in correction.segments])
        flags = edits.detector_flags(pieces, correction)
        proposed = None if flags is None else edits.edits_in_place(answer, pieces, flags, correction.text)
        if flags is None or proposed is None:
            return None
        written = {edit.first: edit.text for edit in proposed}
        cells: list[_Cell] = []
        first = 0
        while first < len(pieces):
            stop = first + 1
            while flags[first] and stop < len(pieces) and flags[stop]:
                stop += 1
            cells.append(_cell(pieces, first, stop, written.get(first)))
            if cells[1:] and cells[-1].text and not pieces[first].text:
                cells[-2].gap = ""  # what is added behind the last segment brings the white space before it
            first = stop
        made = cls(pieces, list(correction.segments), cells, "", correction)
        made._arrange()
        return made

    def flag(self, number: int, verdict: SegmentScore) -> bool:
        """Flag one segment, by this verdict; whether that is new."""
        own = self.verdicts[number]
        if own.flagged or not own.text:
            return False
        self.verdicts[number] = replace(verdict, text=own.text, flagged=True)
        self.changed = True
        self._cell_of(number).text = ""
        return True

    def flag_between(self, start: int, end: int, verdict: SegmentScore) -> bool:
        """Flag the segments that cover this stretch of the original, unless one of them is; whether that is new."""
        covered = [n for n, piece in enumerate(self.pieces) if piece.text and piece.start < end and start < piece.end]
        if any(self.verdicts[number].flagged for number in covered):
            return False
        return bool([number for number in covered if self.flag(number, verdict)])

    def flag_edited(self, start: int, end: int, verdict: SegmentScore) -> bool:
        """Flag what stands in this stretch of the edited answer: segments that stayed, and what was written."""
        found = False
        for cell in self._cells:
            if not (cell.start < end and start < cell.end):
                continue
            if self.verdicts[cell.first].flagged:
                cell.text = ""
                self.changed = True
            else:
                self.flag(cell.first, verdict)
            found = True
        return found

    @property
    def edited(self) -> str:
        """The edited answer, as it was when it was arranged last."""
        return self._edited

    def correction(self) -> Correction:
        """The correction as it is now; the very same one where nothing more was flagged."""
        if not self.changed:
            return self._correction
        self._arrange()
        return replace(self._correction, text=self._edited, segments=tuple(self.verdicts))

    def _arrange(self) -> None:
        self._edited = structure.join([(cell.text, cell.gap) for cell in self._cells])
        at = 0
        for cell in self._cells:
            cell.start = self._edited.find(cell.text, at) if cell.text else at
            cell.end = at = cell.start + len(cell.text)

    def _cell_of(self, number: int) -> _Cell:
        return next(cell for cell in self._cells if cell.first <= number < cell.stop)


def _cell(pieces: Sequence[Segment], first: int, stop: int, written: str | None) -> _Cell:
    """One segment that stays, or a flagged run with what was written in its place."""
    own = structure.join([(piece.text, piece.gap) for piece in pieces[first:stop]])
    gap = pieces[stop - 1].gap
    if written is None:
        return _Cell(first, stop, own, gap)
    return _Cell(first, stop, written.strip() if own else written.rstrip(), gap)
