"""Neutral answers: questions with answers that violate no objective that anybody is likely to teach.

They were written for this package and are shipped with it. A head learns from the difference between an operator's
examples and these answers. So both must be in one language, or the head would learn to tell the languages apart: the
answers of `neutral.jsonl` are for English examples, those of `neutral_languages.jsonl` for others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aligner_proxy.types import Turn

ENGLISH = "en"
_ENGLISH_FILE = Path(__file__).with_name("neutral.jsonl")
_LANGUAGES_FILE = Path(__file__).with_name("neutral_languages.jsonl")
LONGEST_TEACHING_CHARS = 450
"""Most characters of question and answer together. Short answers teach as much about a sentence, and with them teaching
takes less than a minute on two cores."""


@dataclass(frozen=True, slots=True)
class Neutral:
    """One question and its answer."""

    question: str
    answer: str

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (Turn("user", self.question),)


def teaching_answers(language: str = ENGLISH) -> tuple[Neutral, ...]:
    """Return the neutral answers that teaching in this language reads; none if the package has none.

    In English these are only the answers up to `LONGEST_TEACHING_CHARS`.
    """
    if language != ENGLISH:
        return _answers_by_language().get(language, ())
    return tuple(
        neutral
        for neutral in neutral_answers()
        if len(neutral.question) + len(neutral.answer) <= LONGEST_TEACHING_CHARS
    )


@cache
def neutral_answers() -> tuple[Neutral, ...]:
    """Return all English neutral answers of the package, always in the same order."""
    rows = map(json.loads, _ENGLISH_FILE.read_text(encoding="utf-8").splitlines())
    return tuple(Neutral(row["question"], row["answer"]) for row in rows)


@cache
def _answers_by_language() -> dict[str, tuple[Neutral, ...]]:
    """Read the package's neutral answers in other languages than English; return them by language."""
    answers: dict[str, tuple[Neutral, ...]] = {}
    for line in _LANGUAGES_FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        language = row["language"]
        answers[language] = (*answers.get(language, ()), Neutral(row["question"], row["answer"]))
    return answers


def neutral_languages() -> tuple[str, ...]:
    """Return the languages in which the package has neutral answers, English first."""
    return (ENGLISH, *_answers_by_language())
