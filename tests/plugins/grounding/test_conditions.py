"""Which conditions of a statement the facts of an answer meet, and when they are too many to say anything."""

from __future__ import annotations

import pytest

from aligner_proxy_grounding.conditions import MAX_COMPARED, count_conditions
from aligner_proxy_grounding.forms.reader import read_facts


@pytest.mark.parametrize(("count", "met"), [(1, 1.0), (MAX_COMPARED, float(MAX_COMPARED)), (MAX_COMPARED + 1, 0.0)])
def test_conditions_count_unless_they_are_too_many(count: int, met: float) -> None:
    facts = read_facts(" or ".join(f"{number} dollars" for number in range(5, 5 + count)))
    assert len(facts) == count
    assert count_conditions(facts, facts) == (met, 0.0)


def test_only_the_first_facts_of_an_answer_are_compared() -> None:
    facts = read_facts(" or ".join(f"{number} dollars" for number in range(5, 25)))
    assert count_conditions(facts[:1], facts) == (1.0, 0.0)
    assert count_conditions(facts[-1:], facts) == (0.0, 1.0)
