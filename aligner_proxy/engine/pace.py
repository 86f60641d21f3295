"""Estimate of service time: a request that begins now takes as long as others lately did. No torch.

The estimate follows the slow ones: a request that is given too little time wastes it, and that of others with it.
"""

from __future__ import annotations

from dataclasses import dataclass

_RISING = 0.5
_FALLING = 0.05
"""Smoothing, by whether a request took longer than expected."""


@dataclass(slots=True)
class ServiceTime:
    """Seconds from the first token fed to the end, of the requests that take long; 0 before any has ended."""

    stay_s: float = 0.0

    def ended(self, seconds: float, *, failed: bool) -> None:
        """A request has ended; one that failed shows only that it would have taken longer than this."""
        longer = seconds - self.stay_s
        if longer > 0:
            self.stay_s += _RISING * longer
        elif not failed:
            self.stay_s += _FALLING * longer

    def misses(self, deadline: float, now: float) -> bool:
        """Whether one that begins now is likely to end past its deadline; monotonic seconds."""
        return now + self.stay_s > deadline
