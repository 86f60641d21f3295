"""Environment of the pages' templates: all values are escaped, and untrusted texts go through filters of `escaping`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aligner_proxy.types import Status
from aligner_proxy_review.console import escaping
from aligner_proxy_review.console.rates import BARS, COUNTED_STATUSES
from aligner_proxy_review.evidence import percent_text

CHART_HEIGHT = 100
"""Height of the chart in its own units; it is scaled to the page."""
_NO_VALUE = "–"


def make_environment() -> Environment:
    """Make the environment of the templates, with the filters and constants that they use."""
    templates = Environment(
        loader=PackageLoader("aligner_proxy_review.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "shown": escaping.show_text,
        "name": escaping.show_name,
        "plain": escaping.show_plain,
        "score": _score_text,
        "ms": lambda ms: _NO_VALUE if ms is None else f"{ms:,.0f} ms",
        "percent": percent_text,
        "share": lambda share: f"{100 * share:.1f} %",
        "bounds": lambda interval: f"{100 * interval[1]:.1f} to {100 * interval[2]:.1f} %",
        "words": lambda name: name.replace("_", " "),
        "utc": _utc_text,
        "moment": _moment_markup,
        "count": lambda number: f"{number:,}",
    }
    templates.globals |= {
        "STATUSES": [status.value for status in (*COUNTED_STATUSES, Status.SKIPPED)],
        "CHART_HEIGHT": CHART_HEIGHT,
        "BARS": BARS,
    }
    return templates


def _utc_text(epoch_seconds: float) -> str:
    """A time in seconds since the epoch as text in UTC; "?" if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def _moment_markup(epoch_seconds: float) -> Markup:
    """A time as an element of a page: in UTC, until the page's script writes it in the reader's time zone."""
    text = _utc_text(epoch_seconds)
    return Markup('<time datetime="{}">{}</time>').format(text.replace(" ", "T") + "Z", text)


def _score_text(score: Any) -> str:
    """A score with its sign and two decimals; a dash if there is no score."""
    return _NO_VALUE if score is None else f"{score:+.2f}"
