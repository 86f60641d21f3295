"""Time of day that ignores jumps of the machine's clock.

A wrongly set clock must not delete a month of records. As long as the machine's clock and the monotonic clock agree
about elapsed time, `SteadyClock` follows the machine's clock. After a jump it continues from the earlier time until the
machine's clock jumps back or has kept its new time for `BELIEVED_AFTER_S`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aligner_proxy.observability.metrics import CLOCK_JUMP

log = logging.getLogger(__name__)

JUMP_S = 300.0
"""The machine's clock has jumped if both clocks differ in elapsed time by more than this."""
BELIEVED_AFTER_S = 86_400.0
"""Seconds without another jump after which the new time is accepted."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Readings of both clocks at one moment, and the correction to apply; all in seconds."""

    wall: float
    """Seconds since 1970 by the machine's clock."""
    uptime: float = 0.0
    """Seconds since the machine started."""
    boot: str = ""
    """Id of this boot; empty if unknown."""
    offset: float = 0.0
    """Correction to add to `wall`; 0 while the machine's clock is trusted."""
    jumped_at: float = 0.0
    """Time of the last jump, by the machine's clock after it."""

    @property
    def believed_time(self) -> float:
        """The corrected time of day."""
        return self.wall + self.offset


def _read_boot_id() -> str:
    """The id of this boot of the machine; empty if the system does not report it."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


_BOOT = _read_boot_id()
# Prefer a clock that also runs while the machine sleeps; otherwise waking up would look like a jump.
_UPTIME = getattr(time, "CLOCK_BOOTTIME", None)


def read_clocks() -> ClockReading:
    """Read both clocks."""
    uptime = time.monotonic() if _UPTIME is None else time.clock_gettime(_UPTIME)
    return ClockReading(time.time(), uptime, _BOOT)


class SteadyClock:
    """Clock that ignores jumps; `name` is its label in the metric and in the log.

    `last` is a reading by an earlier process. If it is from the same boot, it is compared with the monotonic clock. If
    it is from another boot, a gap of up to `gap_s` seconds counts as the time between the processes.
    """

    def __init__(
        self,
        name: str,
        last: ClockReading | None = None,
        *,
        gap_s: float = math.inf,
        believed_after_s: float = BELIEVED_AFTER_S,
        read: Callable[[], ClockReading] = read_clocks,
    ) -> None:
        self._name = name
        self._gap_s = gap_s
        """Longest time between two processes that is no jump, if the machine was started in between."""
        self._believed_after_s = believed_after_s
        self._read = read
        self._lock = threading.Lock()
        self._last = last or read()
        """The latest reading, with which the next one is compared."""
        self._update_metric()

    def read_time(self) -> float:
        """The corrected time in seconds since 1970."""
        return self.take_reading().believed_time

    def take_reading(self) -> ClockReading:
        """Read both clocks, update the correction, and log and export it if it changed."""
        with self._lock:
            before = self._last
            self._last = self._follow_machine(before, self._read())
            if self._last.offset != before.offset:
                self._log_change(before)
            return self._last

    def _follow_machine(self, last: ClockReading, reading: ClockReading) -> ClockReading:
        """The new reading with its correction: against jumps, and 0 once the machine's clock is back or is accepted."""
        jump = self._measure_jump(last, reading)
        if jump:
            offset = last.offset - jump
            is_back = abs(offset) <= JUMP_S  # so small a rest is no jump
            return replace(reading, offset=0.0 if is_back else offset, jumped_at=reading.wall)
        if last.offset and reading.wall - last.jumped_at >= self._believed_after_s:
            return reading
        return replace(reading, offset=last.offset, jumped_at=last.jumped_at)

    def _measure_jump(self, last: ClockReading, reading: ClockReading) -> float:
        """Seconds by which the machine's clock has jumped between two readings; 0 if it has not."""
        elapsed = reading.wall - last.wall
        if reading.boot and reading.boot == last.boot and reading.uptime >= last.uptime:
            jump = elapsed - (reading.uptime - last.uptime)
            return jump if abs(jump) > JUMP_S else 0.0
        # Without a common boot there is no second clock, so only too long a gap or a step back shows a jump.
        return elapsed if elapsed > self._gap_s or elapsed < -JUMP_S else 0.0

    def _log_change(self, before: ClockReading) -> None:
        """Export the new correction, and log whether the clock is ignored or used again."""
        self._update_metric()
        if self._last.offset:
            log.warning(
                "clock (%s): the machine's clock jumped by %+.0f s; the gateway ignores the jump until the clock "
                "returns or has kept the new time for %.0f s",
                self._name,
                before.offset - self._last.offset,
                self._believed_after_s,
            )
        else:
            log.warning("clock (%s): the machine's clock is used again", self._name)

    def _update_metric(self) -> None:
        CLOCK_JUMP.labels(self._name).set(abs(self._last.offset))
