"""Counted work: how many lines of Python a call runs. Clocks vary with the machine, counts do not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that `work` runs, those of everything that it calls included."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def growth(work: Callable[[int], object], size: int) -> float:
    """How much more work twice the size is: 2.0 where it is linear, 4.0 where it is quadratic."""
    return lines_run(lambda: work(2 * size)) / lines_run(lambda: work(size))
