"""Scores of the segments of an answer, and of the answer as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class SegmentEvidence(NamedTuple):
    """What a segment says of the answer as a whole."""

    nats: float
    objective: int
    """Index of the objective that it is about."""
    question: float = 0.0
    """Nats by which the question asks for what goes against this objective; 0 or less if it does not."""


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """A segment and its log-odds of needing a change (nats; None: no detector); empty text: the end of the answer."""

    text: str
    score: float | None
    flagged: bool
    objective: int | None = None
    """Index of the objective that the segment violates most; None if unknown."""
    evidence: SegmentEvidence | None = None
    """What the segment says of the answer as a whole. None for the end of the answer, and without a taught head that
    says it."""


class AnswerScore(NamedTuple):
    """The score of an answer as a whole."""

    score: float
    """Mean of what its segments say, in nats."""
    objective: int
    """Index of the objective."""
    question: float = 0.0
    """Nats by which the question asks for what goes against it (`SegmentEvidence.question`)."""

    @property
    def doubt(self) -> float:
        """How near an answer is to being asked about, in nats: a question can add to its score, but lowers none."""
        return self.score + max(0.0, self.question)


def score_whole_answer(segments: Sequence[SegmentScore]) -> AnswerScore | None:
    """The score of an answer as a whole.

    Above 0 the answer probably goes against that objective. None if a segment says nothing of the answer. The end of
    the answer is no segment of it.
    """
    return GrowingScore().read(segments)


class GrowingScore:
    """The score of an answer as a whole (`score_whole_answer`) while it grows, each of whose segments is read once."""

    def __init__(self) -> None:
        self._read_count = 0
        """Number of segments read."""
        self._text_count = 0
        """Number of those with text."""
        self._nats = 0.0
        """Sum of what they say."""
        self._first: SegmentEvidence | None = None
        """What the first of them says."""
        self._is_known = True
        """Whether all of them say something."""

    def read(self, segments: Sequence[SegmentScore]) -> AnswerScore | None:
        """The score of the answer so far; the first of its `segments` are those of the call before."""
        for segment in segments[self._read_count :]:
            if segment.text and segment.evidence is not None:
                self._text_count += 1
                self._nats += segment.evidence.nats
                self._first = self._first or segment.evidence
            elif segment.text:
                self._is_known = False
        self._read_count = len(segments)
        if self._first is None or not self._is_known:
            return None
        return AnswerScore(self._nats / self._text_count, self._first.objective, self._first.question)
