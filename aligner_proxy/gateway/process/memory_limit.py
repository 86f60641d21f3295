"""Memory limit of one LiteLLM process: near the limit a successor replaces it; above the limit it ends.

Memory that Python's allocator and libraries keep is freed only when a process ends. On Linux, the resident sizes of a
process and its descendants are read from /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECK_EVERY_S = 5.0
_CHECKS_NEAR = 3
"""Consecutive checks near the limit before it counts, so that a short burst is ignored."""
_NEAR_SHARE = 0.75
"""Share of the limit that counts as near, since a successor needs time to start and running requests still grow."""
_PROC = Path("/proc")
_MIB = 1 << 20
MIN_MB = 768
"""Smallest limit allowed; LiteLLM takes about 400 MB before its first request."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Maximum megabytes (2^20 bytes) of each process; 0 for no limit, for which the methods wait forever."""

    max_mb: int = 0
    check_every_s: float = CHECK_EVERY_S

    async def wait_until_near(self, pid: int) -> int:
        """Wait until a process or a descendant has been near the limit for a while; returns its megabytes."""
        return await self._wait_above(pid, _NEAR_SHARE, _CHECKS_NEAR)

    async def wait_until_exceeded(self, pid: int) -> int:
        """Wait until a process or a descendant exceeds the limit; returns its megabytes."""
        return await self._wait_above(pid, 1.0, 1)

    async def _wait_above(self, pid: int, share: float, needed_checks: int) -> int:
        """Wait until process `pid` or a descendant exceeds this share of the limit at `needed_checks` checks in a row.

        Returns the megabytes of the largest process. Without a limit, this waits forever.
        """
        checks_above = 0
        while True:
            await asyncio.sleep(self.check_every_s)
            resident_mb = largest_mb(pid) if self.max_mb else 0
            checks_above = checks_above + 1 if resident_mb > share * self.max_mb else 0
            if checks_above >= needed_checks:
                return resident_mb


def is_measurable() -> bool:
    """Whether this system reports the memory of a process."""
    return bool(_resident_bytes(os.getpid()))


def largest_mb(pid: int) -> int:
    """The largest resident set of a process and its descendants, in MB; 0 if unknown."""
    # Not a sum: the limit applies to each process.
    return max(map(_resident_bytes, _process_tree(pid))) // _MIB


def _process_tree(pid: int) -> Iterator[int]:
    """The ids of a process and of all its descendants."""
    yield pid
    for path in _PROC.glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):  # the process has ended
            for child in path.read_text().split():
                yield from _process_tree(int(child))


def _resident_bytes(pid: int) -> int:
    """Resident size of one process in bytes; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = (_PROC / str(pid) / "statm").read_text().split()
        resident_pages = int(fields[1])
        return resident_pages * os.sysconf("SC_PAGE_SIZE")
    return 0
