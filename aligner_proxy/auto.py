"""Among which objectives may a net choose for each prompt, and what came of it? Also the words for weights.

How weights are laid over a policy is weighing.py's business.
"""

from __future__ import annotations

from dataclasses import dataclass

MUCH, LITTLE = 1.5, 0.5
"""Times an equal share: from here on an objective is called very important, or less important."""


@dataclass(frozen=True, slots=True)
class Auto:
    """`objectives: auto` of a route. `keep` bounds the candidates that stay; `floor` is the least an enforced one gets.

    Candidates are names; what a tenant enforces or a request asked for is none of them and never dropped.
    """

    candidates: tuple[str, ...]
    enforced: tuple[str, ...] = ()
    keep: int | None = None
    floor: float = 0.0
    words: bool = False
    weights: tuple[tuple[str, float], ...] = ()
    """(objective, weight) once they are weighed, in the policy's order; they sum to 1."""
    reason: str | None = None
    """Why all weigh the same: nobody could weigh them."""


def worded(text: str, share: float) -> str:
    """The objective "Name: description" with its weight in words; `share` is its weight times their number."""
    word = "very important" if share >= MUCH else "less important" if share <= LITTLE else ""
    name, colon, rest = text.partition(":")
    return f"{name} ({word}){colon}{rest}" if word and colon else text
