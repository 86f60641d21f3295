"""Neutral answers: questions with answers that go against no objective anybody is likely to teach.

They are shipped with the package and were written for it. What an objective is against is learned from the difference
between an operator's examples and these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aligner_proxy.types import Turn

_FILE = Path(__file__).with_name("neutral.jsonl")
LONGEST_LESSON_CHARS = 450
"""Of question and answer: short ones say as much about a sentence, and a lesson on two cores ends within a minute."""


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
    """Those that a lesson reads: the shorter ones."""
    return tuple(n for n in neutral_answers() if len(n.question) + len(n.answer) <= LONGEST_LESSON_CHARS)


@cache
def neutral_answers() -> tuple[Neutral, ...]:
    """All that are shipped, always in the same order."""
    rows = map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
    return tuple(Neutral(row["question"], row["answer"]) for row in rows)
