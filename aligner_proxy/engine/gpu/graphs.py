"""Forward passes recorded as CUDA graphs, one for each number of rows in `BUCKETS`, and replayed in every step.

Starting some 300 kernels one by one from Python takes longer than running them. A graph starts them all at once. It
repeats exactly what was recorded, at the same addresses, so all that differs between steps is in `StepInput`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.gpu.stack import Stack
from aligner_proxy.engine.gpu.step import BUCKETS, CHOICE_BUCKETS, MAX_SEQUENCES, StepInput
from aligner_proxy.engine.scheduling.scheduler import Feed

log = logging.getLogger(__name__)

Replay = Callable[[], Any]
"""Repeats a recorded function and returns its result."""
Record = Callable[[Callable[[], Any]], Replay]
"""Is given a function and returns its replay; the function's result must always be the same tensor."""


class CudaRecorder:
    """Records functions as CUDA graphs that share one pool of memory. A replay repeats a recorded function."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Callable[[], Any]) -> Replay:
        """Run the function once, so that its kernels are compiled, then record it; return its replay."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            function()
        torch.cuda.current_stream().wait_stream(self._stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = function()

        def replay() -> Any:
            graph.replay()
            return result

        return replay


class RecordedForwards:
    """Runs steps of one stack, of at most `max_rows` rows: fills the input, replays the forward and the choice of
    tokens, and reads the tokens. A bucket is a number of rows, or of tokens to choose, for which there is a recording.
    """

    def __init__(self, stack: Stack, step_input: StepInput, record: Record, max_rows: int) -> None:
        self.stack = stack
        self._input = step_input
        self._on_gpu = stack.hidden.is_cuda
        # the chosen tokens, on the host
        self._tokens = torch.zeros(CHOICE_BUCKETS[-1], dtype=torch.int32, pin_memory=self._on_gpu)
        # tells when a step on the GPU has ended; None on a CPU, where nothing is waited for
        self._end: Any = torch.cuda.Event() if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._record = record
        self._max_rows = max_rows
        self._forwards: dict[int, Replay] = {}  # by number of rows, one of `BUCKETS`
        self._choices: dict[int, Replay] = {}  # by number of tokens to choose, one of `CHOICE_BUCKETS`

    @torch.inference_mode()
    def record_all(self, report_progress: Callable[[int, int], None] = lambda _index, _count: None) -> None:
        """Record the forward passes and the choices of tokens of every bucket that is not recorded yet.

        The largest is first, because smaller ones then find their memory in its pool. `report_progress` is called
        before each recording, with the recording's index and the number of all recordings.
        """
        forwards = [partial(self.find_forward, rows) for rows in reversed(BUCKETS) if rows <= self._max_rows]
        choices = [partial(self._find_choice, count) for count in reversed(CHOICE_BUCKETS) if count <= self._max_rows]
        began = time.perf_counter()
        # Each forward runs once before it is recorded. If the input still had the rows of an earlier step, a smaller
        # forward would write beyond its own rows.
        self._input.clear()
        for index, record in enumerate([*forwards, *choices]):
            report_progress(index, len(forwards) + len(choices))
            record()
        log.info("recorded %d forward passes in %.1f s", len(forwards), time.perf_counter() - began)

    def find_forward(self, rows: int) -> Replay:
        """Return the forward of a bucket, which is recorded now if it is not yet."""
        if rows not in self._forwards:
            view = self._input.view(rows)
            self._forwards[rows] = self._record(lambda: self.stack.forward(view))
        return self._forwards[rows]

    def _find_choice(self, count: int) -> Replay:
        """Return the choice of `count` tokens, which is recorded now if it is not yet."""
        if count not in self._choices:
            view = self._input.view_choice(count)
            self._choices[count] = self._record(lambda: self.stack.choose(view))
        return self._choices[count]

    def run_layers(self, feed: Feed, layer_count: int) -> Tensor:
        """Run only the first layers, without a recording; return the feed's states [tokens, size] after the norm."""
        rows, _ = self._input.fill([feed])
        states = self.stack.forward(self._input.view(rows), layer_count)
        return states[: feed.stop - feed.start].clone()

    def can_run(self, feeds: Sequence[Feed]) -> bool:
        """Whether a step fits into the buffers and uses no adapter."""
        rows = sum(feed.stop - feed.start for feed in feeds)
        return (
            rows <= self._max_rows
            and len(feeds) <= MAX_SEQUENCES
            and not any(feed.job.sequence.adapter for feed in feeds)
        )

    @torch.inference_mode()
    def run(self, feeds: Sequence[Feed]) -> list[list[int]]:
        """Run all feeds in one forward; return, for each feed, the tokens chosen after its requested positions."""
        rows, choice_count = self._input.fill(feeds)
        run_forward = self.find_forward(rows)
        run_forward()
        if choice_count:
            choose_tokens = self._find_choice(choice_count)
            self._tokens[:choice_count].copy_(choose_tokens(), non_blocking=self._on_gpu)
        if self._end is not None:
            # the only wait of a step; after it, the copy of the input has ended, too
            self._end.record()
            self._end.synchronize()
        # a feed takes as many of the tokens as it has requested positions; those of padding are left over
        tokens = iter(self._tokens[:choice_count].tolist())
        return [list(islice(tokens, len(feed.choice_positions))) for feed in feeds]
