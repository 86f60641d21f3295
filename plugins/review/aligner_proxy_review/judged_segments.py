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
    """The judged segments; for JSON, whose texts are judged separately, only flagged segments have a text."""
    texts = [piece.text for piece in split(content.exchange.answer or "")]
    # one score more if the end of the answer was scored as well; JSON has other numbers
    alike = len(content.scores) in (len(texts), len(texts) + 1)
    against = {flagged.number: flagged for flagged in content.segments}
    result: list[JudgedSegment] = []
    for number, score in enumerate(content.scores):
        flagged = against.get(number)
        own = flagged.text if flagged else None
        text = texts[number] if alike and number < len(texts) else own or ""
        margin = None if score is None else score - content.threshold
        objective = (flagged.objective or "?") if flagged else ""
        result.append(JudgedSegment(number, margin, objective, text))
    return result
