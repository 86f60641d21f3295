"""Conditions of a statement of a reference: other numbers in its row, column or clause that limit when it applies.

Example: in the row "Up to 2 hours | €3" the amount applies to stays of up to two hours. The rows of such a table may
have the same words, so only the conditions tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from aligner_proxy_grounding.facts import Fact, RangeEnd

_DEGREE_WITHIN_BOUND = 0.5
"""How much a number within the condition's bound counts; a number equal to the bound counts 1."""


MAX_COMPARED = 8
"""Most conditions of a statement, and most facts of an answer, that are compared. Every fact is compared with every
statement, so without this limit a sentence of nothing but numbers would take the fourth power of their number."""


def count_conditions(conditions: Sequence[Fact], facts: Sequence[Fact]) -> tuple[float, float]:
    """Return how many conditions of a statement the facts of an answer meet, and how many they miss.

    A condition such as "from 12 persons on" that is met by another number counts only `_DEGREE_WITHIN_BOUND`. A
    condition without a comparable fact is neither met nor missed. Both results are 0 for more than `MAX_COMPARED`
    conditions.
    """
    met_count = 0.0
    missed_count = 0.0
    # among so many numbers, none is likely to say when the statement applies
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
    """How well a fact meets a condition: 1 for the same value, `_DEGREE_WITHIN_BOUND` within its bound, else 0."""
    if condition.agrees(fact):
        # "up to 36 months" and "more than 36 months" exclude each other
        sides = {condition.side, fact.side}
        return 0.0 if sides == {RangeEnd.LOW, RangeEnd.HIGH} else 1.0
    if condition.unit != fact.unit or not (isinstance(condition.value, Decimal) and isinstance(fact.value, Decimal)):
        return 0.0
    # "From 12 persons on" also applies to 15, and "up to 12" to 8, but a number equal to the bound is a surer match.
    is_above_low = condition.side is RangeEnd.LOW and fact.value > condition.value
    is_below_high = condition.side is RangeEnd.HIGH and fact.value < condition.value
    return _DEGREE_WITHIN_BOUND if is_above_low or is_below_high else 0.0
