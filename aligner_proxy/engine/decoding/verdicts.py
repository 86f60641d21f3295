"""Verdicts on the segments of an answer, made of the scores of its pieces (parts.py). No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from aligner_proxy.engine.decoding.parts import Division
from aligner_proxy.engine.scheduling.sequence import Score
from aligner_proxy.types import SegmentEvidence, SegmentScore


@dataclass(frozen=True, slots=True)
class ScoredPieces:
    """The scores of an answer's first pieces, and what their first readings say of the answer as a whole."""

    scores: list[Score] = field(default_factory=list)
    evidence: list[SegmentEvidence] = field(default_factory=list)


def make_verdicts(
    division: Division, scored_pieces: ScoredPieces, caution: float, first: int = 0
) -> tuple[SegmentScore, ...]:
    """Return the verdicts on the segments from index `first` on, up to the first segment with an unscored piece.

    A segment of several pieces gets the verdict of its worst piece, and the mean of their evidence. Scores above
    `caution` are flagged. If there are no scores at all, every segment gets a verdict without a score.
    """
    scores = scored_pieces.scores
    verdicts: list[SegmentScore] = []
    for number in range(first, len(division)):
        text, pieces = division.find_segment(number)
        if not scores:
            verdicts.append(SegmentScore(text, None, flagged=False))
        elif pieces.stop <= len(scores):
            nats, objective = max(scores[pieces.start : pieces.stop], key=lambda score: score[0])
            evidence = _find_mean(scored_pieces.evidence[pieces.start : pieces.stop], len(pieces))
            verdicts.append(SegmentScore(text, nats, nats > caution, objective, evidence))
        else:
            break
    return tuple(verdicts)


def _find_mean(evidence: Sequence[SegmentEvidence], piece_count: int) -> SegmentEvidence | None:
    """Return the mean of the evidence of `piece_count` pieces; None if a piece has none."""
    if len(evidence) != piece_count:
        return None
    return evidence[0]._replace(nats=fmean(piece.nats for piece in evidence))
