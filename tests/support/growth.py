"""How the time of reading a text grows with its length: a comparison, so that the speed of the machine is no matter."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
SIZE = 120_000
_TIMES = 4
"""The long text has so many times the characters of the short one."""
_MOST = 9.0
"""Most times the processor time: 4 is linear, 16 quadratic."""
_TOO_SHORT_S = 0.02
"""Seconds within which nothing can be told."""
_TRIES = 5


def grows_linearly(make: Callable[[int], _T], read: Callable[[_T], object]) -> bool:
    """Whether reading `SIZE` characters takes little more than four times as long as reading a quarter of them."""
    long_text = make(SIZE)
    for _ in range(_TRIES):
        seconds = _time_reading(read, long_text)
        # most texts are read so fast that no short one has to be made
        if seconds < _TOO_SHORT_S or seconds < _MOST * _time_reading(read, make(SIZE // _TIMES)):
            return True
    return False


def _time_reading(read: Callable[[_T], object], text: _T) -> float:
    started = time.process_time()
    read(text)
    return time.process_time() - started
