"""Thread tuner: runs each forward pass with the number of threads that was recently fastest for its size. No torch.

Threads have to wait for each other some two hundred times in a forward pass. For few tokens this costs more than the
threads save, for many tokens they halve the time. On shared cores the slowest thread delays all. This is not known
beforehand and changes, so it is measured during the work. With 4-bit weights the results are bit-identical whatever the
number of threads (tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

PASSES_UNTIL_RETRY = 24
"""After this many passes of one size, another number of threads is tried: the machine's load may have changed."""
_FIXED_COST_TOKENS = 8
"""Fixed cost of a forward pass, in units of the cost of one token."""
_NEWEST_WEIGHT = 0.3
"""Weight of the newest pass in the moving average of costs."""
_LARGEST_SIZE = 64
"""Passes over more tokens than this count as passes of this size."""


@dataclass(slots=True)
class _SizeMeasurements:
    """Measurements of passes of one size: the cost per token by number of threads, and the number of passes."""

    costs: dict[int, float] = field(default_factory=dict)
    pass_count: int = 0


class ThreadTuner:
    """Chooses for each pass whether one thread, half of `most`, or `most` threads compute it. `set_threads` is called
    with the chosen number before the pass, and with `most` after it.
    """

    def __init__(self, most: int, set_threads: Callable[[int], object]) -> None:
        self.most = most
        self._set_threads = set_threads
        self._thread_counts = sorted({1, max(1, most // 2), most})
        self._passes_by_size: dict[int, _SizeMeasurements] = {}  # by the bit length of the number of tokens

    @contextmanager
    def choose_threads_for(self, tokens: int) -> Iterator[None]:
        """Set the threads for one forward pass over `tokens` tokens, and record its cost."""
        if self.most == 1:
            yield
            return
        # sizes are grouped by powers of two
        size_group = min(tokens, _LARGEST_SIZE).bit_length()
        measurements = self._passes_by_size.setdefault(size_group, _SizeMeasurements())
        threads, is_new = self._choose_count(measurements)
        self._set_threads(threads)
        started = perf_counter()
        try:
            yield
        finally:
            cost = (perf_counter() - started) / (tokens + _FIXED_COST_TOKENS)
            self._set_threads(self.most)
        # if this number of threads is tried again after a while, its old average is discarded
        old_average = cost if is_new else measurements.costs[threads]
        measurements.costs[threads] = old_average + _NEWEST_WEIGHT * (cost - old_average)

    def _choose_count(self, measurements: _SizeMeasurements) -> tuple[int, bool]:
        """Choose the number of threads for the next pass of a size; also return whether it was not measured lately."""
        measurements.pass_count += 1
        # the most threads are tried first
        for threads in reversed(self._thread_counts):
            if threads not in measurements.costs:
                return threads, True
        fastest = min(self._thread_counts, key=measurements.costs.__getitem__)
        turn, remainder = divmod(measurements.pass_count, PASSES_UNTIL_RETRY)
        if remainder:
            return fastest, False
        # at every `PASSES_UNTIL_RETRY`th pass another number is tried, each in turn
        slower_counts = [threads for threads in self._thread_counts if threads != fastest]
        return slower_counts[turn % len(slower_counts)], True
