"""Scores of the segments of an answer, and of the answer as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class SegmentEvidence(NamedTuple):
    """What a taught head reads in a segment about the answer as a whole."""

    nats: float
    """Above 0, the segment suggests that the answer violates the objective."""
    objective: int
    """Index of the objective."""
    question: float = 0.0
    """Above 0, the question asks for an answer that violates the objective, by so many nats."""


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """The detector's verdict on a segment, or on the position after the last segment."""

    text: str
    """The segment; empty for the position after the last segment, where something may be missing."""
    score: float | None
    """Log-odds, in nats, that the segment violates an objective; None without a detector."""
    flagged: bool
    objective: int | None = None
    """Index of the objective that the segment violates most; None if unknown."""
    evidence: SegmentEvidence | None = None
    """What a taught head reads in the segment about the whole answer; None without such a head, and without text."""


class AnswerScore(NamedTuple):
    """The score of an answer as a whole."""

    score: float
    """Mean of the evidence of its segments, in nats; above 0 the answer probably violates the objective."""
    objective: int
    """Index of the objective."""
    question: float = 0.0
    """As in `SegmentEvidence`."""

    @property
    def doubt(self) -> float:
        """The score, in nats, by which a judge is asked about the answer: a question can raise it, but not lower it."""
        return self.score + max(0.0, self.question)


def score_whole_answer(segments: Sequence[SegmentScore]) -> AnswerScore | None:
    """The score of an answer as a whole; None if a segment with text has no evidence, or if there is no segment."""
    return GrowingScore().read(segments)


class GrowingScore:
    """The score of an answer as a whole (`score_whole_answer`) while it grows. Each segment is read only once."""

    def __init__(self) -> None:
        self._read_count = 0
        """Number of segments read."""
        self._evidence_count = 0
        """Number of these segments that have text and evidence."""
        self._evidence_sum = 0.0
        """Sum of their evidence, in nats."""
        self._first_evidence: SegmentEvidence | None = None
        """Evidence of the first segment that has any."""
        self._is_complete = True
        """Whether all segments with text have evidence."""

    def read(self, segments: Sequence[SegmentScore]) -> AnswerScore | None:
        """The score of an answer with these segments, of which earlier calls have read the first; None as above."""
        for segment in segments[self._read_count :]:
            if segment.text and segment.evidence is not None:
                self._evidence_count += 1
                self._evidence_sum += segment.evidence.nats
                self._first_evidence = self._first_evidence or segment.evidence
            elif segment.text:
                self._is_complete = False
        self._read_count = len(segments)
        first_evidence = self._first_evidence
        if first_evidence is None or not self._is_complete:
            return None
        mean_nats = self._evidence_sum / self._evidence_count
        return AnswerScore(mean_nats, first_evidence.objective, first_evidence.question)
