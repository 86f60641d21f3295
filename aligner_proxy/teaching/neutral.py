"""Neutral answers: questions with answers that violate no objective that anybody is likely to teach.

They were written for this package and are shipped with it. A head learns from the difference between an operator's
examples and these answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aligner_proxy.types import Turn

_FILE = Path(__file__).with_name("neutral.jsonl")
LONGEST_LESSON_CHARS = 450
"""Maximum characters of question and answer together. Short ones teach as much about a sentence, and with them a lesson
on two cores ends within a minute."""


@dataclass(frozen=True, slots=True)
class Neutral:
    """One question and its answer."""

    question: str
    answer: str

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation before the answer."""
        return (Turn("user", self.question),)


def lesson_answers() -> tuple[Neutral, ...]:
    """The neutral answers that a lesson reads: those up to `LONGEST_LESSON_CHARS`."""
    return tuple(n for n in neutral_answers() if len(n.question) + len(n.answer) <= LONGEST_LESSON_CHARS)


@cache
def neutral_answers() -> tuple[Neutral, ...]:
    """All neutral answers of the package, always in the same order."""
    rows = map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
    return tuple(Neutral(row["question"], row["answer"]) for row in rows)
