"""Thread tuner: as many threads for a forward as have been quickest lately for one of its size. No torch.

Threads have to wait for each other some two hundred times in a forward. Over a few tokens that costs more than they
save, over many it halves the time; and on shared cores the slowest thread delays all. None of this is known beforehand
and all of it changes, so it is measured as the work is done. In four bits the results are the same bit by bit (tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

AGAIN = 24
"""Every so many forwards of a size another number of threads is tried: the machine may have become quiet, or busy."""
_FIXED = 8
"""A forward costs about as much as this many of its tokens before the first of them."""
_NEWEST = 0.3
"""What the newest forward counts among the last ones."""
_LARGE = 64
"""Forwards over more tokens than this are all alike."""


@dataclass(slots=True)
class _Size:
    """Forwards of one size: what a token has cost by the number of threads, and how many forwards there were."""

    costs: dict[int, float] = field(default_factory=dict)
    count: int = 0


class ThreadTuner:
    """Chooses among one thread, half of them and all; `resize` is called with the choice, then with all again."""

    def __init__(self, most: int, resize: Callable[[int], object]) -> None:
        self.most = most
        self._resize = resize
        self._choices = sorted({1, max(1, most // 2), most})
        self._sizes: dict[int, _Size] = {}

    @contextmanager
    def time_forward(self, tokens: int) -> Iterator[None]:
        """For one forward over so many tokens."""
        if self.most == 1:
            yield
            return
        size = self._sizes.setdefault(min(tokens, _LARGE).bit_length(), _Size())
        threads, is_new = self._choose_threads(size)
        self._resize(threads)
        started = perf_counter()
        try:
            yield
        finally:
            cost = (perf_counter() - started) / (tokens + _FIXED)
            self._resize(self.most)
        # What was known about a number of threads that is tried again is old; nothing of it is kept.
        before = cost if is_new else size.costs[threads]
        size.costs[threads] = before + _NEWEST * (cost - before)

    def _choose_threads(self, size: _Size) -> tuple[int, bool]:
        """A number of threads, and whether it is one that nothing recent is known of."""
        size.count += 1
        untried = next((threads for threads in reversed(self._choices) if threads not in size.costs), None)
        if untried is not None:
            return untried, True
        best = min(self._choices, key=size.costs.__getitem__)
        others = [threads for threads in self._choices if threads != best]
        turn, remainder = divmod(size.count, AGAIN)
        return (best, False) if remainder else (others[turn % len(others)], True)
