"""Templates of the pages: everything in them is escaped, and strangers' texts go through `hostile`."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aligner_proxy.console import hostile
from aligner_proxy.console.rates import BARS, COUNTED
from aligner_proxy.types import Status

CHART_HEIGHT = 100
_NO_VALUE = "–"


def environment() -> Environment:
    """The environment of the templates."""
    made = Environment(
        loader=PackageLoader("aligner_proxy.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "shown": hostile.shown,
        "name": hostile.name,
        "plain": hostile.plain,
        "score": _score,
        "ms": lambda ms: _NO_VALUE if ms is None else f"{ms:,.0f} ms",
        "percent": _percent,
        "count": lambda number: f"{number:,}",
    }
    made.globals |= {
        "STATUSES": [status.value for status in (*COUNTED, Status.SKIPPED)],
        "CHART_HEIGHT": CHART_HEIGHT,
        "BARS": BARS,
    }
    return made


def _score(score: Any) -> str:
    return _NO_VALUE if score is None else f"{score:+.2f}"


def _percent(interval: tuple[float, float, float]) -> str:
    value, low, high = (100 * part for part in interval)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"
