"""Conditions of a statement: numbers of its row, column or clause that say for what it holds.

"Up to 2 hours | €3": the amount holds for stays of two hours. Words cannot tell such rows from each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from aligner_proxy_grounding.facts import Fact, RangeEnd

_WITHIN = 0.5
"""What it counts that a number lies on the right side of a bound, against one that is the same."""


def count_conditions(conditions: Iterable[Fact], facts: Sequence[Fact]) -> tuple[float, float]:
    """How many conditions what is said meets, and how many it misses; those of which nothing is said are neither."""
    met_count = 0.0
    missed_count = 0.0
    for condition in conditions:
        degrees = [_degree_of_fit(condition, fact) for fact in facts if condition.same_form(fact)]
        if degrees:
            met_count += max(degrees)
            missed_count += max(degrees) == 0
    return met_count, missed_count


def _degree_of_fit(condition: Fact, fact: Fact) -> float:
    if condition.agrees(fact):
        return 1.0
    if condition.unit != fact.unit or not (isinstance(condition.value, Decimal) and isinstance(fact.value, Decimal)):
        return 0.0
    # "From 12 persons on" also holds for 15, "up to 12" also for 8; but less surely than for 12 itself.
    above = condition.side is RangeEnd.LOW and fact.value > condition.value
    below = condition.side is RangeEnd.HIGH and fact.value < condition.value
    return _WITHIN if above or below else 0.0
