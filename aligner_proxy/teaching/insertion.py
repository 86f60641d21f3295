"""Insertion of a text into a neutral answer, so that it looks like a part of the answer.

A text is inserted between two sentences of prose, before the first one or after the last. It is never inserted into a
list, a table, a dialogue or code, where a head would learn to recognise it by its format. The text is never split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from aligner_proxy.teaching.neutral import Neutral
from aligner_proxy.text.structure import Segment, split

_ENDS = (".", "!", "?", "\u2026", '"', "\u201d", "'", "\u2019", ")", ":", "\u3002", "\uff01", "\uff1f", "`")
"""Signs with which a sentence may end."""
_MARKS = ("-", "*", "+", "\u2022", "#", "|", "`", ">", "~")
"""Signs with which a list item, heading, table row, code or quotation begins."""


@dataclass(frozen=True, slots=True)
class AugmentedAnswer:
    """A neutral answer with a text inserted from `start` to `end`; equal positions mean that nothing was inserted."""

    host: int
    """Index of the neutral answer."""
    neutral: Neutral
    """The question, and the answer with the text in it."""
    start: int = 0
    end: int = 0

    def covers(self, start: int, end: int) -> bool:
        """Whether the inserted text makes up more than half of this range of the answer."""
        return 2 * (min(end, self.end) - max(start, self.start)) > end - start


def insertion_places(answer: str) -> list[int]:
    """Indices of the segments before which a text may be inserted; the number of segments means after the last one."""
    return list(_find_places(answer))


@lru_cache(maxsize=4096)
def _find_places(answer: str) -> tuple[int, ...]:
    """`insertion_places`; cached, because each taught objective looks at the same neutral answers."""
    segments = split(answer)
    prose = [_is_prose(segment) for segment in segments]
    inner = [n for n in range(1, len(segments)) if prose[n - 1] and prose[n]]
    first = [0] if prose and prose[0] else []
    last = [len(segments)] if prose and prose[-1] else []
    return (*first, *inner, *last)


def _is_prose(segment: Segment) -> bool:
    """Whether a segment is a sentence of running text, and no list item, heading, quote, code or row of a table."""
    text = segment.text.strip()
    numbered = text.partition(" ")[0].rstrip(".)").isdigit()
    return text.endswith(_ENDS) and not text.startswith(_MARKS) and not numbered and "\n" not in text


def insert_text(text: str, host: int, neutral: Neutral, place: int) -> AugmentedAnswer:
    """Insert `text` into a neutral answer before the segment with index `place`; adds a full stop if needed."""
    answer = neutral.answer
    segments = split(answer)
    text = text if text.endswith(_ENDS) else f"{text}."
    if place >= len(segments):
        before = answer.rstrip() + " "
        return AugmentedAnswer(host, Neutral(neutral.question, before + text), len(before), len(before) + len(text))
    start = segments[place].start
    # Before the first sentence of a paragraph, the text becomes the paragraph's beginning.
    whole = answer[:start] + text + " " + answer[start:]
    return AugmentedAnswer(host, Neutral(neutral.question, whole), start, start + len(text))


def usable_answers(answers: Sequence[Neutral], numbers: Sequence[int]) -> list[int]:
    """The indices among `numbers` of answers into which a text can be inserted."""
    return [number for number in numbers if insertion_places(answers[number].answer)]


def insert_randomly(text: str, host: int, neutral: Neutral, rng: Random) -> AugmentedAnswer:
    """Insert `text` into a neutral answer at a random possible place."""
    return insert_text(text, host, neutral, rng.choice(insertion_places(neutral.answer)))
