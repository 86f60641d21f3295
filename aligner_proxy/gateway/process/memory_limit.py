"""Limit of the memory that one LiteLLM process may hold: near it, another one takes its place; beyond it, it ends.

What Python's allocator and libraries do not give back, only the end of a process does. The resident sets of a process
and of those below it are read where Linux tells them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 5.0
_LOOKS = 3
"""So many in a row near the limit: a burst goes by."""
_NEAR = 0.75
"""This share of the limit is near it: a successor needs time to start, and requests in flight still grow."""
_PROC = Path("/proc")
_MIB = 1 << 20
LEAST_MB = 768
"""LiteLLM holds about 400 MB before its first request."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Megabytes (2^20 bytes) that each process may hold; 0: any number."""

    most_mb: int = 0
    look_s: float = LOOK_S

    async def wait_near(self, pid: int) -> int:
        """Wait until a process, or one below it, has been near the limit for a while; the megabytes that it holds."""
        return await self._wait_above(pid, _NEAR, _LOOKS)

    async def wait_passed(self, pid: int) -> int:
        """Wait until a process, or one below it, holds more than the limit; the megabytes that it holds."""
        return await self._wait_above(pid, 1.0, 1)

    async def _wait_above(self, pid: int, share: float, looks: int) -> int:
        above = 0
        while True:
            await asyncio.sleep(self.look_s)
            resident_mb = largest_mb(pid) if self.most_mb else 0
            above = above + 1 if resident_mb > share * self.most_mb else 0
            if above >= looks:
                return resident_mb


def is_measurable() -> bool:
    """Whether this system tells what a process holds."""
    return bool(_resident_bytes(os.getpid()))


def largest_mb(pid: int) -> int:
    """The largest resident set among a process and those below it, in MB; 0 where nothing is known."""
    return max(map(_resident_bytes, _process_tree(pid))) // _MIB


def _process_tree(pid: int) -> Iterator[int]:
    yield pid
    for path in _PROC.glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):  # it has ended
            for child in path.read_text().split():
                yield from _process_tree(int(child))


def _resident_bytes(pid: int) -> int:
    """Bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
