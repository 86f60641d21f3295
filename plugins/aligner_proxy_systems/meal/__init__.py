"""Meal plugin: weighs objectives by prompt, and delivers the best of several drafts (README.md)."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Extension, hookimpl
from aligner_proxy_systems.meal.best_of import BestOf
from aligner_proxy_systems.meal.selector import AutoSelector


@hookimpl
def extensions() -> Sequence[Extension]:
    """Return the selector `objectives: auto`, and `best_of`."""
    return [AutoSelector(), BestOf()]
