"""Measured costs of forward passes on this machine, in seconds by the number of tokens. They are measured at an
aligner's first load and stored next to its weights.

The lowest cost of a few rounds over all sizes counts, because other load on the machine only adds to it. Only the
length of drafts and the scheduling of steps depend on the costs. If the file cannot be read or written, the costs are
measured again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.engine.gpu.step import BUCKETS
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence

_SIZES = (1, 64, 16, 4, 128, 32, 8, 256)
"""Numbers of tokens to measure, the most important first, in case time runs out."""
_LARGEST_RECORDED = 512
"""Largest bucket of a recorded forward that is measured."""
_ROUNDS = 6
"""How many times each size is measured."""
_CONTEXT_TOKENS = 256
"""Tokens in the cache before the timed ones, as before a real draft."""
_TIME_LIMIT_S = 4.0
"""Time limit of the measurement. The costs of sizes that are not measured are interpolated or extrapolated."""
_COSTS_FILE = TypeAdapter(dict[str, list[tuple[int, float]]])
"""The stored file: for each machine, by `ModelRunner.machine`, its points (tokens, seconds)."""


def load_or_measure_costs(runner: ModelRunner, file: Path) -> CostCurve:
    """Return the costs of this runner on this machine, from `file` or else measured and then written to it."""
    stored_costs: dict[str, list[tuple[int, float]]] = {}
    with contextlib.suppress(OSError, ValidationError):
        stored_costs = _COSTS_FILE.validate_json(file.read_bytes())
    # weights may be copied or shared between machines, so each has its own entry
    points = stored_costs.get(runner.machine)
    if not points:
        curve = CostCurve.from_samples(_measure_costs(runner))
        _store_costs(file, stored_costs | {runner.machine: [*curve.points]})
        return curve
    return CostCurve.from_samples(points)


def _measure_costs(runner: ModelRunner) -> Iterator[tuple[int, float]]:
    """Time forward passes over a test sequence and yield (tokens, seconds); at the end, free its cache blocks."""
    is_recorded = runner.recorded is not None
    measured_sizes = [size for size in BUCKETS if size <= _LARGEST_RECORDED] if is_recorded else _SIZES
    # a small cache or model may have less room than the largest size needs
    room = min(runner.pool.count_free() * runner.pool.size, runner.positions)
    context = min(_CONTEXT_TOKENS, room // 2)
    length = min(room, context + max(measured_sizes))
    sequence = TokenSequence(ids=[place % 7 + 3 for place in range(length)])  # arbitrary tokens
    no_work: Any = iter(())
    job = Job("measure", no_work, lambda _: None, sequence=sequence)
    sequence.blocks = [runner.pool.take() for _ in range(-(-len(sequence.ids) // runner.pool.size))]
    try:
        runner.run([Feed(job, 0, context)])
        measurement_start = time.perf_counter()
        # a draft, so that a token is chosen after each position, as in real passes
        job.ask = Ask([], draft=[0] * (length - context))
        sizes = [size for size in measured_sizes if size <= length - context]
        # in rounds, so that a burst of other load does not affect one size only
        for _ in range(_ROUNDS):
            for size in sizes:
                if time.perf_counter() - measurement_start > _TIME_LIMIT_S:
                    return
                pass_start = time.perf_counter()
                runner.run([Feed(job, context, context + size)])
                seconds = time.perf_counter() - pass_start
                yield size, seconds
                # padding costs as much as tokens, so all sizes above the next smaller bucket cost the same
                if is_recorded and size > 1:
                    yield BUCKETS[BUCKETS.index(size) - 1] + 1, seconds
    finally:
        runner.pool.give_back(sequence.blocks)


def _store_costs(file: Path, stored_costs: dict[str, list[tuple[int, float]]]) -> None:
    """Write the costs to `file` by a rename, so that no reader sees half of them; a failure is ignored."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_name(f".partial-{file.name}")
        partial_file.write_text(json.dumps(stored_costs, indent=2) + "\n")
        partial_file.replace(file)
