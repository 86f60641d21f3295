"""How is a model made to write a text of our choosing at the price of its own? Real forwards, forced choices.

Speed at an edit rate needs an aligner that edits exactly so much; none does. Each way of decoding computes all its
logits and is then told the target's token, so every one writes the same text with the work that it really costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

import torch
from transformers import LogitsProcessor

from aligner_proxy.engine.runner import ModelRunner
from aligner_proxy.engine.scheduler import Feed

_MEAN_FURTHER = 1.3


def edited(answer: Sequence[int], rate: float, rng: Random, words: Sequence[int]) -> list[int]:
    """The answer's tokens with a share `rate` of them substituted, deleted or inserted, in spans of one to a few.

    `words` is what new tokens are drawn from. At 1.0 nothing of the answer is left.
    """
    if rate >= 1:
        return [rng.choice(words) for _ in answer]
    left, spans = round(rate * len(answer)), list[int]()
    while left > 0:
        spans.append(min(left, 1 + int(rng.expovariate(1 / _MEAN_FURTHER))))
        left -= spans[-1]
    target, at = list[int](), 0
    for start, size in zip(sorted(rng.sample(range(len(answer)), len(spans))), spans, strict=True):
        kind, start = rng.choice(("substitute", "delete", "insert")), max(start, at)
        target += [*answer[at:start], *(rng.choice(words) for _ in range(0 if kind == "delete" else size))]
        at = start if kind == "insert" else start + size
    return target + list(answer[at:])


class Forward:
    """Counts the forwards that generated: those that went beyond the prompt."""

    def __init__(self) -> None:
        self.generating = 0


@contextmanager
def told(runner: ModelRunner, prompt: int, target: Sequence[int]) -> Iterator[Forward]:
    """Inside, the engine's model chooses `target` behind a prompt of `prompt` tokens. One request at a time."""
    count, choose = Forward(), runner._choose

    def chosen(hidden: torch.Tensor, feeds: Sequence[Feed]) -> list[list[int]]:
        choose(hidden, feeds)
        count.generating += any(feed.stop > prompt for feed in feeds)
        return [[_at(target, place + 1 - prompt) for place in feed.wanted] for feed in feeds]

    with patch.object(runner, "_choose", chosen):
        yield count


class Told(LogitsProcessor):
    """The same for transformers' `generate`, and for each position of its assisted decoding."""

    def __init__(self, prompt: int, target: Sequence[int]) -> None:
        self._prompt, self._target = prompt, target

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Logits that leave the target's token alone."""
        forced = torch.full_like(scores, -torch.inf)
        forced[:, _at(self._target, input_ids.shape[1] - self._prompt)] = 0.0
        return forced


def _at(target: Sequence[int], place: int) -> int:
    """Behind a draft that was not accepted anything may stand: nobody reads it."""
    return target[place] if 0 <= place < len(target) else target[-1]
