"""The judged segments of a recorded answer, with the numbers that reviews use."""

from __future__ import annotations

from dataclasses import dataclass

from aligner_proxy.plugins.api import Content
from aligner_proxy.text.structure import split


@dataclass(frozen=True, slots=True)
class JudgedSegment:
    """One judged segment of a recorded answer."""

    number: int
    """Its number in reviews, from 0."""
    margin: float | None
    """Score minus threshold, in nats; None without a score."""
    objective: str
    """The objective that it violates, "?" if unknown; empty if the segment was not flagged."""
    text: str


def judged_segments(content: Content) -> list[JudgedSegment]:
    """Return the judged segments of a recorded answer, one for each score.

    In a JSON answer each string is judged by itself, and the text of a segment is known only if the segment was
    flagged; otherwise it is empty.
    """
    texts = [segment.text for segment in split(content.exchange.answer or "")]
    # There is one more score if the end of the answer was scored, too. Other numbers mean a JSON answer.
    is_plain_text = len(content.scores) in (len(texts), len(texts) + 1)
    flagged_by_number = {segment.number: segment for segment in content.segments}
    segments: list[JudgedSegment] = []
    for number, score in enumerate(content.scores):
        flagged_segment = flagged_by_number.get(number)
        stored_text = flagged_segment.text if flagged_segment else None
        text = texts[number] if is_plain_text and number < len(texts) else stored_text or ""
        margin = None if score is None else score - content.threshold
        objective = (flagged_segment.objective or "?") if flagged_segment else ""
        segments.append(JudgedSegment(number, margin, objective, text))
    return segments
