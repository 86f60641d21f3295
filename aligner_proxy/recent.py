"""Which corrections were used a moment ago? Kept in memory, so that a known answer costs no thread and no disk.

A lookup on disk goes through another thread, and on a busy event loop waits for the interpreter twice.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from aligner_proxy.types import Correction

_MOST_CHARS = 4_000_000
"""Of all texts together; a correction holds its text, and that of its segments once more."""


class Recent:
    """Corrections by key until they expire; those not used for longest make room. `clock` tells seconds since 1970."""

    def __init__(self, most_chars: int = _MOST_CHARS, clock: Callable[[], float] = time.time) -> None:
        self._most, self._clock = most_chars, clock
        self._kept: OrderedDict[str, tuple[float, int, Correction]] = OrderedDict()
        self._chars = 0

    def get(self, key: str) -> Correction | None:
        """The correction, if it is here and young enough."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return found[2]

    def put(self, key: str, correction: Correction, expires: float) -> None:
        """Keep it until `expires` (seconds since 1970); one that would take all the room is not kept."""
        if key in self._kept:
            self._forget(key)
        chars = len(key) + len(correction.text) + sum(len(segment.text) for segment in correction.segments)
        if chars > self._most:
            return
        self._kept[key] = expires, chars, correction
        self._chars += chars
        while self._chars > self._most:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: str) -> None:
        self._chars -= self._kept.pop(key)[1]
