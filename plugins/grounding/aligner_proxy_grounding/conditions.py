"""Conditions of a statement: numbers in its row, column or clause that limit when it applies.

Example: in the row "Up to 2 hours | €3" the amount applies to stays of up to two hours. Words cannot tell such rows
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from aligner_proxy_grounding.facts import Fact, RangeEnd

_WITHIN = 0.5
"""How much a number within the condition's bound counts; a number equal to the bound counts 1."""


MAX_COMPARED = 8
"""Most conditions of a statement, and most facts of an answer, that are compared: every fact is compared with every
statement, so a sentence of nothing but numbers would take the fourth power of their number."""


def count_conditions(conditions: Sequence[Fact], facts: Sequence[Fact]) -> tuple[float, float]:
    """Return (conditions met, conditions missed) by the facts of an answer, each a number of conditions.

    A condition that is met only as a bound counts `_WITHIN`; one without a comparable fact counts as neither.
    """
    met_count = 0.0
    missed_count = 0.0
    # among so many numbers none says when the statement applies
    if len(conditions) > MAX_COMPARED:
        return met_count, missed_count
    compared_facts = facts[:MAX_COMPARED]
    for condition in conditions:
        degrees = [_degree_of_fit(condition, fact) for fact in compared_facts if condition.same_form(fact)]
        if degrees:
            met_count += max(degrees)
            missed_count += max(degrees) == 0
    return met_count, missed_count


def _degree_of_fit(condition: Fact, fact: Fact) -> float:
    """How well a fact meets a condition: 1 for the same value, `_WITHIN` within its bound, 0 if missed."""
    if condition.agrees(fact):
        # "up to 36 months" and "more than 36 months" are two sides of one bound
        sides = {condition.side, fact.side}
        return 0.0 if sides == {RangeEnd.LOW, RangeEnd.HIGH} else 1.0
    if condition.unit != fact.unit or not (isinstance(condition.value, Decimal) and isinstance(fact.value, Decimal)):
        return 0.0
    # "From 12 persons on" also applies to 15, and "up to 12" to 8, but a number equal to the bound is a surer match.
    above = condition.side is RangeEnd.LOW and fact.value > condition.value
    below = condition.side is RangeEnd.HIGH and fact.value < condition.value
    return _WITHIN if above or below else 0.0
