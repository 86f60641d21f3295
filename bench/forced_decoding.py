"""Forced decoding: makes a model write a given text at its normal cost.

Measuring speed at an edit rate needs an aligner that edits exactly that much, and none does. So each way of decoding
computes all its logits, and the chosen token is then replaced by the target's. All ways write the same text at their
real cost. The detector computes its scores too, and its flags are then replaced by the segments that the target
changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from random import Random
from typing import Any
from unittest.mock import patch

import torch

from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.scheduler import Feed
from aligner_proxy.engine.scheduling.sequence import Score, Spans, TokenSequence
from aligner_proxy.text.structure import split
from aligner_proxy.types import SegmentEvidence

_MEAN_FURTHER = 1.3


def edit_tokens(answer: Sequence[int], rate: float, rng: Random, words: Sequence[int]) -> list[int]:
    """Change a share `rate` of the answer's tokens: substitute, delete or insert spans of one to a few tokens.

    New tokens are drawn from `words`. At a rate of 1.0 nothing of the answer remains.
    """
    if rate >= 1:
        return [rng.choice(words) for _ in answer]
    remaining = round(rate * len(answer))
    spans = list[int]()
    while remaining > 0:
        spans.append(min(remaining, 1 + int(rng.expovariate(1 / _MEAN_FURTHER))))
        remaining -= spans[-1]
    target = list[int]()
    at = 0
    for start, size in zip(sorted(rng.sample(range(len(answer)), len(spans))), spans, strict=True):
        kind = rng.choice(("substitute", "delete", "insert"))
        start = max(start, at)
        target += [*answer[at:start], *(rng.choice(words) for _ in range(0 if kind == "delete" else size))]
        at = start if kind == "insert" else start + size
    return target + list(answer[at:])


def find_changed_segments(
    answer: str, offsets: Sequence[tuple[int, int]], ids: Sequence[int], target: Sequence[int]
) -> list[bool]:
    """For each segment of the answer, whether the target changes it.

    `offsets` are the character ranges of the answer's tokens `ids`.
    """
    touched = set[int]()
    for kind, first, last, _, _ in SequenceMatcher(None, ids, target, autojunk=False).get_opcodes():
        if kind != "equal":
            touched |= {offsets[min(at, len(ids) - 1)][1] - 1 for at in range(first, max(last, first + 1))}
    return [any(s.start <= at < s.end + len(s.gap) for at in touched) for s in split(answer)]


class ForwardCount:
    """Counts forwards that generated tokens, that is, went beyond the prompt."""

    def __init__(self) -> None:
        self.generating = 0


@contextmanager
def force_engine(
    runner: ModelRunner, prompt: int, target: Sequence[int], flags: Sequence[bool]
) -> Iterator[ForwardCount]:
    """Force the engine to choose `target` after `prompt` tokens and to flag `flags`, for one request at a time."""
    score = runner.score_segments

    def scores(feed: Feed, spans: Spans) -> tuple[list[Score], list[SegmentEvidence]]:
        own_scores, evidence = score(feed, spans)
        return [(3.0 if flag else -3.0, 0) for flag, _ in zip(flags, own_scores, strict=True)], evidence

    with patch.object(runner, "score_segments", scores), force_targets(runner, lambda _: (prompt, target)) as count:
        yield count


@contextmanager
def force_targets(
    runner: ModelRunner, find_target: Callable[[TokenSequence], tuple[int, Sequence[int]]]
) -> Iterator[ForwardCount]:
    """Force the engine to choose, for each sequence, a target after so many tokens of prompt, as `find_target` says."""
    count = ForwardCount()
    run = runner.run

    def run_forced(feeds: Sequence[Feed]) -> list[list[int]]:
        run(feeds)
        targets = [find_target(feed.job.sequence) for feed in feeds]
        count.generating += any(feed.stop > prompt for feed, (prompt, _) in zip(feeds, targets, strict=True))
        return [
            [_target_token(target, place + 1 - prompt) for place in feed.choice_positions]
            for feed, (prompt, target) in zip(feeds, targets, strict=True)
        ]

    with patch.object(runner, "run", run_forced):
        yield count


@contextmanager
def force_model(model: Any, prompt: int, target: Sequence[int]) -> Iterator[None]:
    """Make transformers' model prefer `target` after a prompt of `prompt` tokens, by changing its logits.

    A `LogitsProcessor` would not be fair. Prompt lookup asks the processors which draft tokens they forbid and drops
    those, so a processor that knows the target would reveal the right drafts before they cost anything.
    """

    def raise_target_logits(_: Any, _arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        logits = output.logits
        end = keywords["past_key_values"].get_seq_length()
        for row in range(1, logits.shape[1] + 1):
            logits[0, -row, _target_token(target, end - row + 1 - prompt)] = torch.inf

    hook = model.register_forward_hook(raise_target_logits, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _target_token(target: Sequence[int], place: int) -> int:
    """The target's token at a position; beyond the end any token will do, since it is never used."""
    return target[place] if 0 <= place < len(target) else target[-1]
