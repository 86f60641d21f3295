"""`python -m bench.capacity.measure OUT`: measures the engine's steps here, and of which steps corrections consist.

The corrections of `bench.load`'s answers run through the real engine loop, first alone, then several at once. Each
step's whole duration is timed (schedule, forward, scores, postprocessing). For each correction, its requests to the
model are recorded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.scheduling.scheduler import Job
from aligner_proxy.engine.scheduling.sequence import TokenSequence, Work
from aligner_proxy.policy import config
from aligner_proxy.types import Turn
from bench import upstream

ALONE = 100
"""Number of answers of each kind that are corrected alone, one after the other."""
FIRST = 1000
"""Number of the first answer; as many digits as in a real run, since the digits are tokens too."""
IDLE_S = 0.3
"""Idle seconds before each of them; after idling, an engine's steps take some 5 % longer."""
COMPANY = (2, 4, 8, 16)
"""How many corrections run at once; each setting is run with as many answers as the largest."""


def make_request(name: str) -> AlignRequest:
    """The request that the gateway of `bench.load` would send to its engine for this question."""
    objective = config.builtin_objectives()["harmless"].text
    answer = upstream.answer(name)
    return AlignRequest(
        request_id=name, turns=(Turn("user", name),), answer=answer, objectives=(objective,), deadline_s=600
    )


@dataclass(slots=True)
class Trace:
    """The requests of one correction to the model: tokens before each, tokens fed, and draft tokens."""

    bad: bool
    asks: list[dict[str, int]] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    """The tokens of its first request."""


def record_requests(work: Work, sequence: TokenSequence, trace: Trace) -> Work:
    """Run the work unchanged and record its requests in `trace`."""
    ask = next(work)
    while True:
        tokens_before = len(sequence.ids)
        trace.prompt = trace.prompt or list(ask.ids)
        trace.asks.append({"behind": tokens_before, "fed": len(ask.ids), "draft": len(ask.draft), "shared": ask.shared})
        step = yield ask
        try:
            ask = work.send(step)
        except StopIteration as end:
            return end.value


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two prompts."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def record_shared_prefixes(traces: Sequence[Trace]) -> None:
    """Record for each prompt the longest prefix that it shares with another; the engine caches it within one tenant."""
    alike = sorted(traces, key=lambda trace: trace.prompt)
    longest = dict.fromkeys(range(len(alike)), 0)
    for number, (one, other) in enumerate(pairwise(alike)):
        common = _common_length(one.prompt, other.prompt)
        longest[number] = max(longest[number], common)
        longest[number + 1] = max(longest[number + 1], common)
    for number, trace in enumerate(alike):
        trace.asks[0]["shared"] = max(trace.asks[0]["shared"], longest[number])


def run_corrections(aligner: Aligner, names: Iterable[str]) -> tuple[list[tuple[int, float]], list[Trace]]:
    """Run these corrections in one loop; return (tokens, seconds) of its steps, and the recorded requests."""
    loop = Loop(aligner)
    traces: list[Trace] = []
    for name in names:
        trace = Trace(name.startswith("bad"))
        sequence = TokenSequence()
        work = record_requests(correct(aligner, make_request(name), sequence), sequence, trace)
        loop.add(Job(name, work, lambda _: None, sequence=sequence))
        traces.append(trace)
    steps = []
    while loop.busy:
        before = loop.scheduler.totals.fed_tokens
        began = time.perf_counter()
        loop.step()
        steps.append((loop.scheduler.totals.fed_tokens - before, time.perf_counter() - began))
    return steps, traces


def average_steps(steps: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Mean tokens and mean seconds of steps of similar size; means, because sums of steps are predicted from them."""
    alike: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for tokens, seconds in steps:
        if tokens:
            alike[round(tokens.bit_length() * 2 + (tokens >> max(0, tokens.bit_length() - 2) & 1))].append(
                (tokens, seconds)
            )
    rows = []
    for _, several in sorted(alike.items()):
        tokens = round(statistics.mean(one for one, _ in several))
        rows.append((tokens, round(statistics.mean(seconds for _, seconds in several), 6)))
    return rows


def main() -> int:
    """Measure and write the result to one file."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity.measure", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--threads", type=int, default=0, help="as for the engine; 0: as torch chooses")
    options = parser.parse_args()
    aligner = open_aligner(EngineSettings(model=options.model, threads=options.threads), config.home_folder())
    run_corrections(aligner, ["good warm-up"])
    steps: list[tuple[int, float]] = []
    traces: list[Trace] = []
    for number in range(FIRST, FIRST + ALONE):
        for sort in ("good", "bad"):
            time.sleep(IDLE_S)
            new_steps, trace = run_corrections(aligner, [f"{sort} number {number}"])
            steps += new_steps
            traces += trace
    for company in COMPANY:
        for first in range(0, max(COMPANY), company):
            names = [f"{'bad' if n % 4 == 0 else 'good'} {company} {n}" for n in range(first, first + company)]
            steps += run_corrections(aligner, names)[0]
    record_shared_prefixes(traces)
    report = {
        "model": options.model,
        "threads": torch.get_num_threads(),
        "believed": aligner.runner.costs.points,
        "step_tokens": aligner.runner.step_tokens,
        "blocks": [aligner.runner.pool.count, aligner.runner.pool.size],
        "steps": len(steps),
        "curve": average_steps(steps),
        "traces": [{"bad": trace.bad, "asks": trace.asks} for trace in traces],
    }
    options.out.write_text(json.dumps(report) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "traces"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
