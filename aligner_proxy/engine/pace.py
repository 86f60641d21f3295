"""How long will somebody be worked on who begins now? As long as others lately were. No torch.

The estimate follows the slow ones: who is given too little time wastes it, and that of others with it.
"""

from __future__ import annotations

from dataclasses import dataclass

_RISING, _FALLING = 0.5, 0.05
"""Smoothing, by whether somebody took longer than expected."""


@dataclass(slots=True)
class Pace:
    """Seconds from the first token fed to the end, of those who are not done quickly; 0 before anybody has ended."""

    stay_s: float = 0.0

    def ended(self, seconds: float, *, failed: bool) -> None:
        """Somebody is done; one that failed says only that it would have taken longer than this."""
        longer = seconds - self.stay_s
        if longer > 0:
            self.stay_s += _RISING * longer
        elif not failed:
            self.stay_s += _FALLING * longer

    def misses(self, deadline: float, now: float) -> bool:
        """Whether one that begins now is likely to end past its deadline; monotonic seconds."""
        return now + self.stay_s > deadline
