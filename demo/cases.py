"""A question of a demo, and the examples before it that lead a real model to its manner; it holds no answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MODEL = "smollm2"
"""The real local model, as LiteLLM's file calls it."""


@dataclass(frozen=True, slots=True)
class DemoCase:
    """One question to a model; `examples` has the questions and answers before it."""

    title: str
    question: str
    examples: tuple[tuple[str, str], ...] = ()
    model: str = MODEL
    options: dict[str, Any] = field(default_factory=lambda: {"temperature": 0, "seed": 1, "max_tokens": 64})

    @property
    def messages(self) -> list[Any]:
        """The messages for a chat completion."""
        turns = [
            turn for question, answer in self.examples for turn in (_turn("user", question), _turn("assistant", answer))
        ]
        return [*turns, _turn("user", self.question)]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def call_text(name: str, arguments: str) -> str:
    """A tool call as a demo shows it."""
    return f"{name}({arguments})"
