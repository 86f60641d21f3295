"""Equality of the engine and the plain model on a device, alone and in a batch with adapters, in fp32.

Generated text is compared with `generate` on the same weights with the adapter merged in. Verdicts are compared with
those of the same prompt prefilled whole and alone. In a batch, all cases run in one loop with a cache that is too
small. So prompts are prefilled in chunks and as they grow, prefixes are shared, and some sequences are preempted and
start again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest
from random import Random
from typing import Any

import torch

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.speculative import Tally, WritingLimits, WrittenTokens, generate
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.lora import Adapter, LoraDelta
from aligner_proxy.engine.model.runner import AdapterWeights, ModelRunner
from aligner_proxy.engine.scheduling.draft_length import FLAT, CostCurve
from aligner_proxy.engine.scheduling.scheduler import Job
from aligner_proxy.engine.scheduling.sequence import Ask, Spans, TokenSequence, Work
from bench import shapes
from bench.forced_decoding import edit_tokens

RATES = (0.0, 0.05, 0.2, 1.0)
WORDS = range(10, shapes.VOCABULARY)
CLOSE = 1e-4
"""Largest difference, in nats, between two equal verdicts on a segment in fp32."""
# Length of the prefix that half of the prompts share, and of the longest prompt, in tokens.
_SHARED = 40
_LONGEST = 240
# Tokens in the shared cache, and in one step.
_ROOM = 480
_PIECE = 96
_UNEVEN = CostCurve(((1, 1.0), (4, 1.0), (64, 9.0)))
"""Costs under which the engine chooses short drafts."""


@dataclass(frozen=True, slots=True)
class EqualityCase:
    """A test case: a prompt under an adapter, the spans to judge, a draft, and what `generate` writes."""

    adapter: int
    prompt: list[int]
    spans: Spans
    draft: list[int]
    target: list[int]


@dataclass(frozen=True, slots=True)
class EqualityCounts:
    """Numbers of cases with equal results, alone and in a batch; of each other case alone, where it first differs.

    `differences` are (case, token, nats between both tokens by the library's logits): below 0.001 rounding decided.
    """

    alone: int
    together: int
    differences: list[tuple[int, int, float]]


def compare(shape: str, device: str, cases: int, tokens: int = 64) -> EqualityCounts:
    """Compare so many cases."""
    model = shapes.make_model(shape, device, torch.float32, layers=min(4, shapes.SHAPES[shape]["num_hidden_layers"]))
    adapters = [_make_adapter(model, number) for number in (1, 2)]
    heads = [DetectorHead.create_for_model(model.config).eval() for _ in range(3)]
    prepared_cases = [_make_case(model, adapters, number, tokens) for number in range(cases)]
    over = [AdapterWeights(adapter, head) for adapter, head in zip(adapters, heads[1:], strict=True)]
    runner = shapes.make_runner(model, _ROOM, heads[0], over)
    alone = [_run_alone(runner, case, number) for number, case in enumerate(prepared_cases)]
    works = [_prepare_growing(runner, case, Random(number)) for number, case in enumerate(prepared_cases)]
    company = run_works(runner, works, budget=_PIECE)
    same = [one.target == written_ids(end) for one, end in zip(prepared_cases, alone, strict=True)]
    pairs = zip(prepared_cases, alone, company, strict=True)
    both = [one.target == written_ids(other) and _agree(end, other) for one, end, other in pairs]
    differences = [
        (number, *_find_difference(model, adapters, case, written_ids(end)))
        for number, (case, end) in enumerate(zip(prepared_cases, alone, strict=True))
        if case.target != written_ids(end)
    ]
    return EqualityCounts(sum(same), sum(both), differences)


@torch.inference_mode()
def _find_difference(
    model: Any, adapters: Sequence[Adapter], case: EqualityCase, own_ids: list[int]
) -> tuple[int, float]:
    """The first token that differs, and how much higher the library's logit of its own token is, in nats."""
    at = next(i for i, (own, other) in enumerate(zip_longest(case.target, own_ids)) if own != other)
    if at >= min(len(case.target), len(own_ids)):
        return at, math.inf
    ids = torch.tensor([[*case.prompt, *case.target[:at]]], device=model.device)
    with _merge_adapter(model, adapters[case.adapter - 1] if case.adapter else {}):
        logits = model(ids).logits[0, -1].float()
    return at, float(logits[case.target[at]] - logits[own_ids[at]])


def write(runner: ModelRunner, prompt: list[int], draft: list[int], tokens: int) -> list[int]:
    """Tokens that the engine generates after a prompt with a draft, including the end token."""
    sequence = TokenSequence()
    return written_ids(
        run_works(runner, [(sequence, _make_work(runner, sequence, Ask(prompt, prompt=True), draft, tokens))])[0]
    )


def run_works(runner: ModelRunner, works: Sequence[tuple[TokenSequence, Work]], budget: int = 1024) -> list[Any]:
    """Run these cases in one loop and return their results; raises their errors."""
    ends: list[Any] = [None] * len(works)
    family = prompts.TEMPLATES["ultrafeedback"]
    about = AlignerInfo("shape", "-", family.name, family.hash, runner.positions, False, "none", runner.device)
    loop = Loop(Aligner(runner, about), budget=budget, most=max(1, len(works)))
    for number, (sequence, work) in enumerate(works):
        loop.add(Job(str(number), work, partial(ends.__setitem__, number), sequence=sequence))
    while not loop.is_idle():
        loop.step()
    for end in ends:
        if isinstance(end, Exception):
            raise end
    if loop.scheduler.totals.unbalanced:
        raise RuntimeError("the books of the KV cache do not balance")
    return ends


def _make_case(model: Any, adapters: Sequence[Adapter], number: int, tokens: int) -> EqualityCase:
    """Make case `number`: a random prompt, what `generate` writes after it, and a draft that differs from that."""
    rng = Random(number)
    adapter = number % (len(adapters) + 1)
    prompt = rng.choices(WORDS, k=rng.randrange(30, _LONGEST - _SHARED))
    if number % 2:
        prompt = [*Random(-1).choices(WORDS, k=_SHARED), *prompt]
    ids = torch.tensor([prompt], device=model.device)
    with _merge_adapter(model, adapters[adapter - 1] if adapter else {}):
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    target: list[int] = output[0, len(prompt) :].tolist()
    cuts = [0, *sorted(rng.sample(range(1, len(prompt)), 5)), len(prompt)]
    parts = [range(*both) for both in pairwise(cuts)]
    draft = edit_tokens(target, RATES[number % len(RATES)], rng, WORDS)
    return EqualityCase(adapter, prompt, Spans(tuple(parts[:2]), tuple(parts[2:])), draft, target)


def _run_alone(runner: ModelRunner, case: EqualityCase, number: int) -> WrittenTokens:
    """Run a case alone with its prompt prefilled whole; every second case has short drafts."""
    runner.costs = _UNEVEN if number % 2 == 0 else FLAT
    sequence = TokenSequence(case.adapter)
    first = Ask(case.prompt, spans=case.spans, prompt=True)
    generated: WrittenTokens = run_works(
        runner, [(sequence, _make_work(runner, sequence, first, case.draft, len(case.target)))]
    )[0]
    return generated


def _prepare_growing(runner: ModelRunner, case: EqualityCase, rng: Random) -> tuple[TokenSequence, Work]:
    """The same case with a prompt that is prefilled as it grows."""
    sequence, cuts = TokenSequence(case.adapter), sorted(rng.sample(range(1, len(case.prompt)), rng.randrange(4)))

    def work() -> Work:
        for start, stop in pairwise([0, *cuts]):
            yield Ask(case.prompt[start:stop], prompt=True)
        last = Ask(case.prompt[cuts[-1] if cuts else 0 :], spans=case.spans, prompt=True)
        return (yield from _make_work(runner, sequence, last, case.draft, len(case.target)))

    return sequence, work()


def _make_work(runner: ModelRunner, sequence: TokenSequence, first: Ask, draft: list[int], tokens: int) -> Work:
    proposer = DraftProposer([*draft, shapes.EOS], runner.choose_draft_length)
    return generate(sequence, first, proposer, WritingLimits(tokens), Tally(), frozenset({shapes.EOS}))


def written_ids(end: WrittenTokens) -> list[int]:
    return [*end.ids, shapes.EOS] if end.finished else list(end.ids)


def _agree(one: WrittenTokens, other: WrittenTokens) -> bool:
    """Whether both have verdicts, and the same ones."""
    if not one.scores or len(one.scores) != len(other.scores):
        return False
    return all(abs(a - b) <= CLOSE for (a, _), (b, _) in zip(one.scores, other.scores, strict=True))


def _make_adapter(model: Any, seed: int) -> Adapter:
    """A random adapter of rank 4 on two kinds of layers, strong enough to change the output."""
    rng = torch.Generator().manual_seed(seed)
    layers = ("self_attn.q_proj", "mlp.down_proj")
    deltas = {}
    for number in range(model.config.num_hidden_layers):
        for name in layers:
            layer = model.model.layers[number].get_submodule(name)
            down = torch.randn(4, layer.in_features, generator=rng) * layer.in_features**-0.5
            up = torch.randn(layer.out_features, 4, generator=rng) * 0.5
            deltas[f"model.layers.{number}.{name}"] = LoraDelta(down.to(model.device), up.to(model.device))
    return deltas


@contextmanager
def _merge_adapter(model: Any, adapter: Adapter) -> Iterator[None]:
    """Merge the adapter into the weights within the block; afterwards restore them bit by bit."""
    before = {layer: model.get_submodule(layer).weight.data for layer in adapter}
    for layer, detour in adapter.items():
        model.get_submodule(layer).weight.data = before[layer] + detour.up @ detour.down
    try:
        yield
    finally:
        for layer, weight in before.items():
            model.get_submodule(layer).weight.data = weight
