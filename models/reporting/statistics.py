"""A rate with its 95 % interval (Wilson), and an AUC with its own (Hanley and McNeil); with n."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

_Z = 1.96


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % Wilson interval, all in percent."""

    hits: int
    n: int
    percent: float
    low: float
    high: float

    @classmethod
    def from_outcomes(cls, outcomes: Iterable[bool]) -> Rate:
        """From single yes/no outcomes; an empty set gives a rate of n = 0."""
        values = [bool(outcome) for outcome in outcomes]
        return cls.from_counts(sum(values), len(values))

    @classmethod
    def from_counts(cls, hits: int, n: int) -> Rate:
        """From counts."""
        if not n:
            return cls(0, 0, 0.0, 0.0, 100.0)
        z = _Z
        p = hits / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        # Rounding may put an end a hair inside the share itself.
        return cls(hits, n, 100 * p, 100 * max(0.0, min(p, middle - half)), 100 * min(1.0, max(p, middle + half)))

    @property
    def whiskers(self) -> tuple[float, float]:
        """How far the interval reaches below and above, for a plot."""
        return self.percent - self.low, self.high - self.percent

    def __str__(self) -> str:
        return f"{self.hits}/{self.n} = {self.percent:.1f} % [{self.low:.1f}, {self.high:.1f}]" if self.n else "n = 0"


@dataclass(frozen=True, slots=True)
class Area:
    """The chance that one of `high` segments that must change scores above one of `low` that must stay (AUC)."""

    auc: float
    high: int
    low: int

    @classmethod
    def from_scores(cls, high: Sequence[float], low: Sequence[float]) -> Area:
        """From the scores of both sorts; a tie counts as half a win. Scores 3, 1 against 2: 0.5."""
        wins = sum((higher > lower) + 0.5 * (higher == lower) for higher in high for lower in low)
        return cls(wins / (len(high) * len(low)), len(high), len(low))

    @property
    def deviation(self) -> float:
        """Its standard deviation (Hanley and McNeil 1982, equation 1)."""
        both_high = self.auc / (2 - self.auc)
        both_low = 2 * self.auc**2 / (1 + self.auc)
        single = self.auc * (1 - self.auc)
        spread = single + (self.high - 1) * (both_high - self.auc**2) + (self.low - 1) * (both_low - self.auc**2)
        return sqrt(max(0.0, spread) / (self.high * self.low))

    @property
    def n(self) -> int:
        """Segments of both sorts."""
        return self.high + self.low

    @property
    def percent(self) -> float:
        """As a share is shown in a plot."""
        return 100 * self.auc

    @property
    def whiskers(self) -> tuple[float, float]:
        """How far the interval reaches below and above, for a plot."""
        reach = 100 * _Z * self.deviation
        return min(reach, self.percent), min(reach, 100 - self.percent)

    def __str__(self) -> str:
        low = max(0.0, self.auc - _Z * self.deviation)
        high = min(1.0, self.auc + _Z * self.deviation)
        return f"{self.auc:.3f} [{low:.3f}, {high:.3f}], n = {self.high} and {self.low}"
