"""The parts of `bench.gpu_floor` that write answers: one at a time with edits, and sixteen at once."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import torch

from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.speculative import Tally, WritingLimits, generate
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence, Work
from bench import equality, shapes
from bench.device_time import time_work
from bench.equality import RATES, WORDS
from bench.forced_decoding import edit_tokens, force_engine, force_targets
from bench.gpu_device import DeviceBench, Row
from bench.gpu_models import ModelPair

_SEGMENT = 16
"""Tokens of a segment where only flagged segments are written."""


def time_edits(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Write one answer at a time with edits of 0 to 100 %: with drafts, without, and by `generate` of the library."""
    runner = pair.runner
    answer_tokens = bench.options.answer
    plain_s = _time_generate(bench, pair.peer, answer_tokens)
    yield {"name": "generate", "ms": 1000 * plain_s}
    for rate in RATES:
        for way in ("drafts", "no drafts") if rate in (0.0, 1.0) else ("drafts",):
            seconds = []
            forwards = []
            for number in range(bench.options.rounds + 1):
                rng = Random(number)
                prompt = rng.choices(WORDS, k=2 * answer_tokens)
                answer = rng.choices(WORDS, k=answer_tokens)
                target = [*edit_tokens(answer, rate, rng, WORDS), shapes.EOS]
                with force_engine(runner, len(prompt), target, ()) as count:
                    took_s, ids = time_work(partial(_write, runner, prompt, answer, target, way))
                if ids != target:
                    raise RuntimeError("the engine did not write what it was told")
                if number:
                    seconds.append(took_s)
                    forwards.append(count.generating)
            ms = 1000 * statistics.median(seconds)
            yield {
                "name": f"edits {rate:.0%} {way}",
                "ms": ms,
                "forwards": statistics.mean(forwards),
                "over_generate": 1000 * plain_s / ms,
            }


def _time_generate(bench: DeviceBench, peer: Any, answer_tokens: int) -> float:
    """Median seconds in which `generate` writes an answer after a prompt twice as long."""
    times = []
    for number in range(bench.options.rounds + 1):
        rng = Random(number)
        ids = torch.tensor([rng.choices(WORDS, k=2 * answer_tokens)], device=bench.device)
        options: Row = {"max_new_tokens": answer_tokens + 1, "min_new_tokens": answer_tokens + 1, "do_sample": False}
        with torch.inference_mode():
            times.append(time_work(partial(peer.generate, ids, attention_mask=torch.ones_like(ids), **options))[0])
    return statistics.median(times[1:])


def _propose(runner: ModelRunner, answer: list[int], way: str) -> DraftProposer:
    """A proposer whose drafts come from the answer, as long as the costs say; without drafts for another `way`."""
    rule = runner.choose_draft_length if way == "drafts" else lambda _acceptance, _room: 0
    return DraftProposer([*answer, shapes.EOS], rule)


def _write(runner: ModelRunner, prompt: list[int], answer: list[int], target: list[int], way: str) -> list[int]:
    """Write one answer with the engine, and return its tokens."""
    sequence = TokenSequence()
    first = Ask(prompt, prompt=True)
    limits = WritingLimits(len(target))
    work = generate(sequence, first, _propose(runner, answer, way), limits, Tally(), frozenset({shapes.EOS}))
    return equality.written_ids(equality.run_works(runner, [(sequence, work)])[0])


def time_sixteen(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Write sixteen answers at once: whole without and with drafts, and only their flagged segments."""
    for rate in (0.2, 0.0, 1.0):
        for way in ("whole, no drafts", "whole, drafts", "flagged"):
            seconds = []
            for number in range(bench.options.rounds + 1):
                took_s = _time_together(bench, pair.runner, bench.together, rate, way, number)
                seconds += [took_s] * bool(number)
            yield {"name": f"sixteen {rate:.0%} {way}", "ms": 1000 * statistics.median(seconds)}


def _time_together(bench: DeviceBench, runner: ModelRunner, count: int, rate: float, way: str, seed: int) -> float:
    """Seconds until `count` answers are written together."""
    targets: dict[int, tuple[int, list[int]]] = {}
    works: list[tuple[TokenSequence, Work]] = []
    answer_tokens = bench.options.answer
    for number in range(count):
        rng = Random(1000 * seed + number)
        prompt = rng.choices(WORDS, k=2 * answer_tokens)
        answer = rng.choices(WORDS, k=answer_tokens)
        segments = answer_tokens // _SEGMENT
        flagged = sorted(rng.sample(range(segments), round(rate * segments)))
        target = list(answer)
        for segment in flagged:
            target[segment * _SEGMENT : (segment + 1) * _SEGMENT] = rng.choices(WORDS, k=_SEGMENT)
        sequence = TokenSequence()
        targets[id(sequence)] = (len(prompt), [*target, shapes.EOS])
        if way == "flagged":
            work = _write_flagged(runner, sequence, prompt, answer, target, flagged)
        else:
            proposer = _propose(runner, answer, "drafts" if way == "whole, drafts" else "no drafts")
            limits = WritingLimits(len(target) + 1)
            first = Ask(prompt, prompt=True)
            work = generate(sequence, first, proposer, limits, Tally(), frozenset({shapes.EOS}))
        works.append((sequence, work))
    with force_targets(runner, lambda sequence: targets[id(sequence)]):
        return time_work(partial(equality.run_works, runner, works))[0]


def _write_flagged(
    runner: ModelRunner,
    sequence: TokenSequence,
    prompt: list[int],
    answer: list[int],
    target: list[int],
    flagged: list[int],
) -> Work:
    """Read the prompt; then, for each flagged segment, feed the text kept before it, and write the segment only."""
    step = yield Ask(prompt, prompt=True)
    for segment in flagged:
        first = segment * _SEGMENT
        context = [*prompt, *target[:first]]
        start = min(len(sequence.ids), len(context) - 1)
        sequence.crop(start)
        # as in the engine, the first draft is the text after the segment, as if it were removed
        old = answer[first : first + _SEGMENT]
        then = answer[first + _SEGMENT : first + 2 * _SEGMENT]
        proposer = DraftProposer([*old, *then, shapes.EOS], runner.choose_draft_length, anchors=(len(old),))
        limits = WritingLimits(_SEGMENT)
        yield from generate(sequence, Ask(context[start:]), proposer, limits, Tally(), frozenset({shapes.EOS}))
    return step
