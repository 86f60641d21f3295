"""The two models of a shape that `bench.gpu_floor` compares, and the time of one forward of each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aligner_proxy.engine.gpu.step import find_bucket
from aligner_proxy.engine.model.cost import load_or_measure_costs
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.sequence import TokenSequence
from bench import shapes
from bench.device_time import free_memory
from bench.gpu_device import DeviceBench, Row
from bench.gpu_kernels import make_feed
from tests.engine.gpu import plain_kernels
from tests.engine.gpu.fake_recorder import run_directly

_CONTEXT = 768
"""Tokens before those that a timed forward reads."""
_ROWS = (1, 4, 16, 32, 64, 256, 768)


@dataclass(frozen=True, slots=True)
class ModelPair:
    """Two equal models of a shape: one as the library runs it, and one as the engine does."""

    shape: str
    peer: Any
    runner: ModelRunner
    recording_s: float
    """Seconds in which the forwards were recorded."""
    gigabytes: float
    """Memory that the recorded forwards take."""

    @classmethod
    def make(cls, bench: DeviceBench, shape: str) -> ModelPair:
        """Make both models, which takes up to half a minute on a GPU."""
        peer = _make(bench, shape)
        tokens = max(4 * 2048, bench.together * (4 * bench.options.answer + 64))
        runner = shapes.make_runner(_make(bench, shape), tokens, accelerated=False)
        free_memory()
        before = torch.cuda.memory_allocated() if bench.on_gpu else 0
        began = time.perf_counter()
        _accelerate(runner)
        seconds = time.perf_counter() - began
        runner.costs = load_or_measure_costs(runner, Path("/dev/null/not-kept"))
        return cls(
            shape, peer, runner, seconds, (torch.cuda.memory_allocated() - before) / 1e9 if bench.on_gpu else 0.0
        )


def time_forwards(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Milliseconds of one step of the engine after `_CONTEXT` tokens, for several numbers of new rows."""
    runner = pair.runner
    yield {
        "name": "recording",
        "s": pair.recording_s,
        "recorded": runner.recorded is not None,
        "copied": bool(runner.recorded and runner.recorded.stack.products[0].weight is not None),
        "GB": pair.gigabytes,
    }
    yield {"name": "costs", "points": [list(point) for point in runner.costs.points]}
    library = shapes.make_runner(pair.peer, 2048, accelerated=False)
    for count in _ROWS if bench.on_gpu else (1, 16):
        ms = _time_step(bench, runner, count, 20)
        floor = bench.floor_of_forward(pair.shape, count, _CONTEXT)
        yield {
            "name": "forward",
            "rows": count,
            "library_ms": _time_step(bench, library, count, 5),
            "ms": ms,
            "device_ms": _time_replay(bench, runner, count),
            "floor_ms": floor,
            "over_floor": ms / floor,
        }


def _make(bench: DeviceBench, shape: str) -> Any:
    return shapes.make_model(shape, str(bench.device), torch.bfloat16, four_bits=True)


def _accelerate(runner: ModelRunner) -> None:
    """Record the forward as the engine does at load; on a CPU, with the plain kernels."""
    if runner.device == "cpu":
        runner.use_recorded(plain_kernels, run_directly)
        return
    from aligner_proxy.engine.model import acceleration

    acceleration.accelerate(runner)


def _time_step(bench: DeviceBench, runner: ModelRunner, count: int, rounds: int) -> float:
    """Milliseconds of `run` for one sequence with `count` new tokens after a context, with the wait at its end."""
    context = _CONTEXT if bench.on_gpu else 64
    sequence = TokenSequence(ids=[5] * (context + count))
    sequence.blocks = [runner.pool.take() for _ in range(-(-len(sequence.ids) // BLOCK))]
    try:
        times = []
        feed = make_feed(sequence, context)
        for _ in range(3 + rounds if bench.on_gpu else 4):
            began = time.perf_counter()
            runner.run([feed])
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times[3:])
    finally:
        runner.pool.give_back(sequence.blocks)


def _time_replay(bench: DeviceBench, runner: ModelRunner, count: int) -> float | None:
    """Milliseconds of the recorded forward on the device alone, with the last step's input."""
    if not bench.on_gpu or runner.recorded is None:
        return None
    with torch.inference_mode():
        return bench.time_call(runner.recorded.find_forward(find_bucket(count)))
