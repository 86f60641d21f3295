"""Confidence intervals of proportions that were counted in a sample."""

from __future__ import annotations

import math

_Z = 1.96
"""Normal quantile of a 95 % interval."""


def wilson_interval(count: float, total: int) -> tuple[float, float, float]:
    """(share, low, high): the proportion with its Wilson 95 % interval, which is valid for small and zero counts."""
    if total == 0:
        return 0.0, 0.0, 1.0  # nothing was counted, so any proportion is possible
    share = count / total
    z = _Z**2 / total
    middle = (share + z / 2) / (1 + z)
    half = _Z / (1 + z) * math.sqrt(share * (1 - share) / total + z / (4 * total))
    return share, max(0.0, middle - half), min(1.0, middle + half)
