"""The judged segments of a recorded answer, numbered as reviews name them."""

from __future__ import annotations

from dataclasses import dataclass

from aligner_proxy.plugins.api import Content
from aligner_proxy.text.structure import split


@dataclass(frozen=True, slots=True)
class JudgedSegment:
    """One judged segment."""

    number: int
    margin: float | None
    """By how many nats its score is above the threshold; None where it has no score."""
    objective: str
    """That against which it was flagged, "?" where nobody knows which; empty: it was not flagged."""
    text: str


def judged_segments(content: Content) -> list[JudgedSegment]:
    """The judged segments; those of JSON, whose texts are judged apart, have a text only where they were flagged."""
    texts = [piece.text for piece in split(content.exchange.answer or "")]
    alike = len(content.scores) in (len(texts), len(texts) + 1)
    against = {flagged.number: flagged for flagged in content.segments}
    judged: list[JudgedSegment] = []
    for number, score in enumerate(content.scores):
        flagged = against.get(number)
        own = flagged.text if flagged else None
        text = texts[number] if alike and number < len(texts) else own or ""
        margin = None if score is None else score - content.threshold
        objective = (flagged.objective or "?") if flagged else ""
        judged.append(JudgedSegment(number, margin, objective, text))
    return judged
