"""The judged segments of a recorded answer, with the numbers that reviews use."""

from __future__ import annotations

from dataclasses import dataclass

from aligner_proxy.plugins.api import Content
from aligner_proxy.text.structure import split


@dataclass(frozen=True, slots=True)
class JudgedSegment:
    """One judged segment."""

    number: int
    margin: float | None
    """Score minus threshold, in nats; None without a score."""
    objective: str
    """The objective it violates, "?" if unknown; empty if it was not flagged."""
    text: str


def judged_segments(content: Content) -> list[JudgedSegment]:
    """Return the judged segments of a recorded answer, one for each score.

    In a JSON answer each string is judged by itself, and only the flagged segments have a text.
    """
    texts = [piece.text for piece in split(content.exchange.answer or "")]
    # there is one score more if the end of the answer was scored, too; in a JSON answer the numbers differ
    fits_texts = len(content.scores) in (len(texts), len(texts) + 1)
    flagged_by_number = {flagged.number: flagged for flagged in content.segments}
    segments: list[JudgedSegment] = []
    for number, score in enumerate(content.scores):
        flagged = flagged_by_number.get(number)
        stored_text = flagged.text if flagged else None
        text = texts[number] if fits_texts and number < len(texts) else stored_text or ""
        margin = None if score is None else score - content.threshold
        objective = (flagged.objective or "?") if flagged else ""
        segments.append(JudgedSegment(number, margin, objective, text))
    return segments
