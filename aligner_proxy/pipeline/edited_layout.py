"""Layout of an edited answer: a list of cells, each an unflagged segment or a flagged run with its replacement.

A second reading may flag further segments and replacements, which are then removed. This module works on text only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aligner_proxy.gate import edits
from aligner_proxy.gate.flagged_runs import edits_in_place
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, SegmentScore


@dataclass(slots=True)
class _Cell:
    """An unflagged segment, or a run of flagged segments, with the text that the edited answer has for it."""

    first: int
    """Number of the cell's first segment."""
    stop: int
    """Number of the first segment after the cell."""
    text: str
    """The text in the edited answer; empty if the segments are removed."""
    gap: str
    """The white space after the cell, as in the original."""
    start: int = 0
    end: int = 0
    """Offsets of the text in the edited answer after the latest `rebuild`; equal if there is no text."""


@dataclass(slots=True)
class EditedLayout:
    """A correction taken apart into cells. Segments are known by their number, from 0."""

    segments: Sequence[Segment]
    """The segments of the original answer; the last may be empty, for the position after the text."""
    verdicts: list[SegmentScore]
    """The verdict on each segment; verdicts of second readings replace those of the first."""
    _cells: list[_Cell]
    _correction: Correction
    """The correction of the first reading."""
    changed: bool = False
    """Whether a second reading has flagged a segment or a replacement of the correction."""

    @classmethod
    def from_correction(cls, answer: str, correction: Correction) -> EditedLayout | None:
        """Take a correction apart; None if it has no verdicts, or changes text that was not flagged."""
        segments = structure.match_segments(structure.split(answer), [verdict.text for verdict in correction.segments])
        flags = edits.detector_flags(segments, correction)
        proposed_edits = None if flags is None else edits_in_place(answer, segments, flags, correction.text)
        if flags is None or proposed_edits is None:
            return None
        new_texts = {edit.first: edit.text for edit in proposed_edits}
        cells: list[_Cell] = []
        first = 0
        while first < len(segments):
            stop = first + 1
            # consecutive flagged segments are replaced by one text
            while flags[first] and stop < len(segments) and flags[stop]:
                stop += 1
            cells.append(_build_cell(segments, first, stop, new_texts.get(first)))
            if cells[1:] and cells[-1].text and not segments[first].text:
                cells[-2].gap = ""  # text added after the last segment brings its own leading white space
            first = stop
        return cls(segments, list(correction.segments), cells, correction)

    def flag(self, number: int, verdict: SegmentScore) -> bool:
        """Flag a segment with this verdict and remove its text; return whether it was not flagged before."""
        old_verdict = self.verdicts[number]
        # the position after the last segment has no text that could be removed, so it is not flagged here
        if old_verdict.flagged or not old_verdict.text:
            return False
        self.verdicts[number] = replace(verdict, text=old_verdict.text, flagged=True)
        self.changed = True
        self._cell_of(number).text = ""
        return True

    def flag_between(self, start: int, end: int, verdict: SegmentScore) -> bool:
        """Flag all segments in this range of the original answer; return whether any was newly flagged.

        If one of them is flagged already, none is: the range may have been flagged only for that segment.
        """
        covered_numbers = [
            number
            for number, segment in enumerate(self.segments)
            if segment.text and segment.start < end and start < segment.end
        ]
        if any(self.verdicts[number].flagged for number in covered_numbers):
            return False
        newly_flagged = [number for number in covered_numbers if self.flag(number, verdict)]
        return bool(newly_flagged)

    def flag_edited(self, start: int, end: int, verdict: SegmentScore) -> bool:
        """Flag and remove the cells with text in this range of the rebuilt answer; return whether there are any."""
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

    def correction(self) -> Correction:
        """The correction with the present edited answer and verdicts."""
        return replace(self._correction, text=self.rebuild(), segments=tuple(self.verdicts))

    def rebuild(self) -> str:
        """Join the cells to the edited answer, note where each is in it, and return it."""
        edited_answer = structure.join([(cell.text, cell.gap) for cell in self._cells])
        position = 0
        for cell in self._cells:
            cell.start = edited_answer.find(cell.text, position) if cell.text else position
            cell.end = cell.start + len(cell.text)
            position = cell.end
        return edited_answer

    def _cell_of(self, number: int) -> _Cell:
        """The cell that contains the segment of this number."""
        return next(cell for cell in self._cells if cell.first <= number < cell.stop)


def _build_cell(segments: Sequence[Segment], first: int, stop: int, replacement: str | None) -> _Cell:
    """The cell of the segments `first` up to `stop`; a `replacement` of None means that they stay unchanged."""
    original = structure.join([(segment.text, segment.gap) for segment in segments[first:stop]])
    gap = segments[stop - 1].gap
    if replacement is None:
        return _Cell(first, stop, original, gap)
    # text that is added at the end of the answer brings the white space before it
    text = replacement.strip() if original else replacement.rstrip()
    return _Cell(first, stop, text, gap)
