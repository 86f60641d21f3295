"""Least-recently-used cache of corrections in memory, so that a known answer costs no thread and no disk.

A lookup on disk goes through another thread, and on a busy event loop waits for the interpreter twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import TLRUCache

from aligner_proxy.types import Correction

_MOST_CHARS = 4_000_000
"""Of all texts together; a correction holds its text, and that of its segments once more."""
_Kept = tuple[Correction, int, float]


class Recent:
    """Corrections by key until they expire; those not used for longest make room. `clock` tells seconds since 1970."""

    def __init__(self, most_chars: int = _MOST_CHARS, clock: Callable[[], float] = time.time) -> None:
        self._kept: TLRUCache[str, _Kept] = TLRUCache(
            most_chars, ttu=lambda _key, kept, _now: kept[2], timer=clock, getsizeof=lambda kept: kept[1]
        )

    def get(self, key: str) -> Correction | None:
        """The correction, if it is here and young enough."""
        kept = self._kept.get(key)
        return kept[0] if kept else None

    def put(self, key: str, correction: Correction, expires: float) -> None:
        """Keep it until `expires` (seconds since 1970); one that would take all the room is not kept."""
        self._kept.pop(key, None)
        chars = len(key) + len(correction.text) + sum(len(segment.text) for segment in correction.segments)
        if chars <= self._kept.maxsize:
            self._kept[key] = correction, chars, expires
