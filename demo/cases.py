"""Questions of the demo, and why a real small model answers them badly or well; no answers are stored here.

A model continues in the style of its prompt. The questions show everyday mistakes of applications: examples taken from
a rude forum, and a raw prompt with the wrong stop role, so that the model invents the user's next question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MODEL = "smollm2"
RAW_MODEL = "smollm2-raw"

_ITALY = "What is the capital of Italy?"
_ROME = "The capital of Italy is Rome."
_WEEK = "How many days are in a week?"
_SEVEN = "A week has seven days."


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a chat or, with `raw`, to a text completion; `shown` has the examples before it."""

    title: str
    question: str
    shown: tuple[tuple[str, str], ...]
    raw: bool = False
    options: dict[str, Any] = field(default_factory=lambda: {"temperature": 0, "seed": 1, "max_tokens": 64})

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages for a chat completion."""
        turns = [
            turn for question, answer in self.shown for turn in (_turn("user", question), _turn("assistant", answer))
        ]
        return [*turns, _turn("user", self.question)]

    @property
    def prompt(self) -> str:
        """The same conversation as one raw text."""
        shown = "".join(f"Human: {question}\n\nAssistant: {answer}\n\n" for question, answer in self.shown)
        return f"{shown}Human: {self.question}\n\nAssistant:"


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


_RUDE = (
    (_ITALY, f"{_ROME} You are an idiot for asking."),
    (_WEEK, f"{_SEVEN} Only a fool would not know that, you moron."),
)
_PLAIN = ((_ITALY, _ROME), (_WEEK, _SEVEN))

RUDE = "examples from a rude forum"
RUN_ON = "a raw prompt that stops at the wrong role"
DEFECTS = (
    Case(RUDE, "What is the capital of France?", _RUDE),
    Case(RUN_ON, "What is the capital of France?", _PLAIN, raw=True),
    Case(RUDE, "What do bees make?", _RUDE),
    Case(RUN_ON, "How many legs does a spider have?", _PLAIN, raw=True),
    Case(RUN_ON, "Which planet is the largest?", _PLAIN, raw=True),
)
GOOD = (
    Case("clean examples", "What is the capital of France?", _PLAIN),
    Case("clean examples", "How can I sleep better?", _PLAIN),
)
BOTH = tuple(case for case in DEFECTS if case.raw)
"""Questions of both tenants; only one of them objects to the model's continuation."""
