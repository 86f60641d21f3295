"""Insertion of a text into a neutral answer (an answer that violates no objective), so that the text looks like a part
of the answer.

A text is inserted between two sentences of prose, before the first sentence or after the last. It is never inserted
into a list, a table, a dialogue or code, where a head would learn to recognise it by its format. The text is never
split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from aligner_proxy.teaching.neutral import Neutral
from aligner_proxy.text.structure import Segment, split

_SENTENCE_ENDS = (".", "!", "?", "\u2026", '"', "\u201d", "'", "\u2019", ")", ":", "\u3002", "\uff01", "\uff1f", "`")
"""Signs with which a sentence may end."""
_LAYOUT_MARKS = ("-", "*", "+", "\u2022", "#", "|", "`", ">", "~")
"""Signs with which a list item, heading, table row, code or quotation begins."""


@dataclass(frozen=True, slots=True)
class AugmentedAnswer:
    """A neutral answer with a text inserted from `start` to `end`, excluded; both are equal if nothing was inserted."""

    host: int
    """Index of the neutral answer."""
    neutral: Neutral
    """The question, and the answer with the text in it."""
    start: int = 0
    end: int = 0

    def covers(self, start: int, end: int) -> bool:
        """Whether the inserted text makes up more than half of the answer's characters from `start` to `end`."""
        common_length = min(end, self.end) - max(start, self.start)
        return 2 * common_length > end - start


@lru_cache(maxsize=4096)  # each taught objective looks at the same neutral answers
def insertion_places(answer: str) -> tuple[int, ...]:
    """Return the indices of the segments before which a text may be inserted.

    The number of segments, as an index, means that the text may be inserted after the last one.
    """
    are_prose = [_is_prose(segment) for segment in split(answer)]
    # there is nothing before the first segment and after the last one that could disturb
    prose_before = [True, *are_prose]
    prose_after = [*are_prose, True]
    if not are_prose:
        return ()
    return tuple(index for index in range(len(are_prose) + 1) if prose_before[index] and prose_after[index])


def _is_prose(segment: Segment) -> bool:
    """Whether a segment is a sentence of running text, and no list item, heading, quote, code or row of a table."""
    text = segment.text.strip()
    first_word, _, _ = text.partition(" ")
    is_numbered = first_word.rstrip(".)").isdigit()
    has_mark = text.startswith(_LAYOUT_MARKS)
    return text.endswith(_SENTENCE_ENDS) and not has_mark and not is_numbered and "\n" not in text


def insert_text(text: str, host: int, neutral: Neutral, place: int) -> AugmentedAnswer:
    """Insert `text` into a neutral answer before the segment with index `place`, after the last if there is none.

    A full stop is added if the text does not end like a sentence. `host` is the index of the neutral answer.
    """
    answer = neutral.answer
    segments = split(answer)
    text = text if text.endswith(_SENTENCE_ENDS) else f"{text}."
    if place >= len(segments):
        text_before = answer.rstrip() + " "
        start = len(text_before)
        new_answer = text_before + text
    else:
        # before the first sentence of a paragraph, the text becomes the paragraph's beginning
        start = segments[place].start
        new_answer = answer[:start] + text + " " + answer[start:]
    return AugmentedAnswer(host, Neutral(neutral.question, new_answer), start, start + len(text))


def usable_answers(answers: Sequence[Neutral], indices: Sequence[int]) -> list[int]:
    """Return those of the `indices` whose answers have a place where a text can be inserted."""
    return [index for index in indices if insertion_places(answers[index].answer)]


def insert_randomly(text: str, host: int, neutral: Neutral, rng: Random) -> AugmentedAnswer:
    """Insert `text` into a neutral answer at a random possible place."""
    return insert_text(text, host, neutral, rng.choice(insertion_places(neutral.answer)))
